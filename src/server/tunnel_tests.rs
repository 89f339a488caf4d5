//! Nodes that came by a TLS stream.

use super::*;
use crate::wire::control::AddressProof;
use crate::wire::stun::{ChangeRequest, Request, Response};

const TCP: &str = "203.0.113.1:50000";
const STREAM: u32 = 7;

fn join_by_stream(world: &mut World, key: u8, number: u32, real: &str, hello: Hello) -> usize {
    let client = world.connect_on(SocketName::Tunnel(number), key, real);
    world.say(client, ToServer::Hello(hello));
    client
}

fn told(introduction: &Introduction) -> Vec<String> {
    let candidates = introduction.candidates.iter();
    candidates.map(|candidate| candidate.address.to_string()).collect()
}

#[test]
fn nodes_are_told_the_port_of_streams_and_one_by_a_stream_is_registered() {
    let mut world = world();
    let client = join_by_stream(&mut world, 1, STREAM, TCP, hello());
    let heard = world.heard(client);
    let [
        FromServer::Welcome {
            observed,
            tunnel_port,
            stun,
            ..
        },
    ] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((observed.to_string().as_str(), *tunnel_port), (TCP, 443));
    assert!(stun.is_empty(), "what is beside a TCP address is no STUN server");
    assert_eq!(world.server.counters().nodes, 1);
}

#[test]
fn nobody_is_told_the_address_of_a_stream() {
    let mut world = world();
    let candidates = [
        (CandidateKind::Manual, "203.0.113.1:7000"),
        (CandidateKind::Local, "192.168.1.5:4000"),
    ]
    .map(|(kind, address)| Candidate {
        kind,
        address: address.parse().unwrap(),
    });
    let behind = Hello {
        candidates: candidates.to_vec(),
        ..hello()
    };
    let tunnelled = join_by_stream(&mut world, 1, STREAM, TCP, behind);
    let stranger = world.join(2, "203.0.113.2:5000", hello());
    let neighbour = join_by_stream(&mut world, 3, STREAM + 1, "203.0.113.1:50001", hello());
    for client in [tunnelled, stranger, neighbour] {
        assert!(world.welcomed(client));
    }
    world.ask(tunnelled, 1, stranger);
    let (asker, target) = (world.introduction(tunnelled), world.introduction(stranger));
    assert_eq!(
        (asker.own_observed, told(&asker)),
        (None, vec!["203.0.113.2:5000".to_owned()])
    );
    // A port forwarded by hand at that address is still one; the household's addresses are for the household.
    assert_eq!(told(&target), ["203.0.113.1:7000"]);
    world.ask(neighbour, 1, tunnelled);
    assert_eq!(
        told(&world.introduction(neighbour)),
        ["203.0.113.1:7000", "192.168.1.5:4000"]
    );
}

#[test]
fn a_stream_that_ends_takes_its_node_along() {
    let mut world = world();
    let gone = join_by_stream(&mut world, 1, STREAM, TCP, hello());
    let stays = join_by_stream(&mut world, 2, STREAM + 1, TCP, hello());
    let by_udp = world.join(3, TCP, hello());
    assert!(world.welcomed(stays) && world.welcomed(by_udp));
    world.server.tunnel_closed(world.now, STREAM);
    world.settle();
    assert_eq!(world.server.counters().nodes, 2);
    world.ask(stays, 1, gone);
    assert_eq!(world.failed(stays), Code::TargetNotConnected);
    world.server.tunnel_closed(world.now, STREAM);
    world.server.tunnel_closed(world.now, 1_000);
    assert_eq!(world.server.counters().nodes, 2);
}

/// What the server answers to a request by that socket, and by which one.
fn stun(server: &mut Server, now: Instant, request: Request) -> Option<(SocketName, Response)> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    let datagram = Datagram {
        socket: SocketName::Tunnel(STREAM),
        source: TCP.parse().unwrap(),
        destination_ip: None,
        ecn: None,
        contents: BytesMut::from(&bytes[..]),
    };
    server.handle_datagram(now, datagram);
    let mut buffer = Vec::new();
    let transmit = server.poll_transmit(now, &mut buffer)?;
    assert!(buffer.len() <= bytes.len());
    Some((transmit.socket, Response::decode(&buffer).unwrap()))
}

#[test]
fn stun_by_a_stream_proves_no_address_and_is_answered_there_alone() {
    let World { now, mut server, .. } = world();
    let plain = Response::Success {
        transaction: [7; 12],
        mapped: TCP.parse().unwrap(),
        origin: None,
        other: None,
        cookie: None,
    };
    let expected = Some((SocketName::Tunnel(STREAM), plain));
    assert_eq!(stun(&mut server, now, Request::new([7; 12]).with_cookie()), expected);
    let elsewhere = Request::new([7; 12]).with_response_port(4_444);
    let other_port = Request::with_change([7; 12], ChangeRequest { ip: false, port: true });
    for request in [elsewhere, other_port] {
        let (socket, response) = stun(&mut server, now, request).unwrap();
        assert_eq!(socket, SocketName::Tunnel(STREAM));
        assert!(!matches!(response, Response::Success { .. }), "{response:?}");
    }
}

#[test]
fn what_was_proven_for_udp_counts_beside_a_stream() {
    let mut world = world();
    let address: SocketAddr = "203.0.113.1:4000".parse().unwrap();
    let cookie = world.server.cookies.cookie(world.now, address);
    let proven = Hello {
        proofs: vec![AddressProof { address, cookie }],
        ..hello()
    };
    let tunnelled = join_by_stream(&mut world, 1, STREAM, TCP, proven);
    let asker = world.join(2, "203.0.113.2:5000", hello());
    assert!(world.welcomed(tunnelled) && world.welcomed(asker));
    world.ask(asker, 1, tunnelled);
    assert_eq!(told(&world.introduction(asker)), ["203.0.113.1:4000"]);
}
