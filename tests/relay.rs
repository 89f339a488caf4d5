//! The relay of the running program, over loopback: frames through the threads of its shell.
#![cfg(target_os = "linux")]

mod relay_kit;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lanline::engine::SocketName;
use lanline::relay::ticket::{Grant, TicketKey};
use lanline::relay::{RelayLimits, Way};
use lanline::server::OutsideRelay;
use lanline::shell::forwarder::{Forwarder, ForwarderConfig, Handed};
use lanline::shell::udp::UdpSocket as MainSocket;
use lanline::wire::relay::{Bound, DATA_HEADER, DataHeader, GONE_LENGTH, Gone, Refusal};
use lanline::wire::stun::{Request, Response};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use relay_kit::{Serving, bind_frame, data_frame, grant};

/// Only so that a failure is one, instead of a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lanline"))
}

fn serve(arguments: &[&str]) -> Serving {
    Serving::start(program(), arguments).unwrap()
}

/// On loopback, with three threads whatever the machine has.
fn serve_on(listen: &[&str]) -> Serving {
    let mut arguments = vec!["--port", "0", "--alt-port", "0", "--relay-threads", "3"];
    for ip in listen {
        arguments.extend(["--listen", ip]);
    }
    serve(&arguments)
}

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

/// One side of a session.
struct Side {
    grant: Grant,
    socket: UdpSocket,
    relay: SocketAddr,
    counter: u64,
}

impl Side {
    /// Bound.
    fn new(key: &TicketKey, session: u64, from_asker: bool, relay: SocketAddr) -> Self {
        let ip = if relay.is_ipv4() { "127.0.0.1" } else { "::1" };
        let side = Self {
            grant: grant(session, from_asker),
            socket: socket(ip),
            relay,
            counter: 0,
        };
        side.bind(key);
        side
    }

    fn bind(&self, key: &TicketKey) {
        let frame = bind_frame(key, &self.grant);
        self.socket.send_to(&frame, self.relay).unwrap();
        let (answer, from) = receive(&self.socket);
        let bound = Bound::decode(&answer).unwrap();
        assert!(answer.len() <= frame.len());
        assert_eq!(bound.refusal, None);
        assert_eq!((bound.observed, from), (self.socket.local_addr().unwrap(), self.relay));
    }

    fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        self.counter += 1;
        data_frame(&self.grant, self.counter, payload)
    }

    fn send(&mut self, payload: &[u8]) {
        let frame = self.frame(payload);
        self.socket.send_to(&frame, self.relay).unwrap();
    }

    /// The payload of the next frame, which must be genuine.
    fn receive(&self) -> Vec<u8> {
        let (frame, from) = receive(&self.socket);
        let (header, payload) = DataHeader::decode(&frame).unwrap();
        let expected = self.grant.key.data_tag(frame.first_chunk().unwrap());
        assert_eq!((header.tag, header.session), (expected, self.grant.session));
        assert_eq!(from, self.relay, "from where this side sends to");
        payload.to_vec()
    }
}

fn pair(key: &TicketKey, session: u64, asker: SocketAddr, other: SocketAddr) -> [Side; 2] {
    [
        Side::new(key, session, true, asker),
        Side::new(key, session, false, other),
    ]
}

/// Sends several datagrams of one length to one destination in one system call (GSO).
fn send_run(socket: &UdpSocket, destination: SocketAddr, run: &[u8], segment: usize) {
    let state = UdpSocketState::new(UdpSockRef::from(socket)).unwrap();
    socket.set_nonblocking(false).unwrap();
    let transmit = Transmit {
        destination,
        ecn: None,
        contents: run,
        segment_size: Some(segment),
        src_ip: None,
    };
    state.try_send(UdpSockRef::from(socket), &transmit).unwrap();
    socket.set_nonblocking(false).unwrap();
}

/// Asks the server's STUN.
fn stun_answers(server: SocketAddr) -> bool {
    let socket = socket("127.0.0.1");
    let mut request = Vec::new();
    Request::new([9; 12]).encode(&mut request);
    socket.send_to(&request, server).unwrap();
    matches!(Response::decode(&receive(&socket).0), Ok(Response::Success { .. }))
}

#[test]
fn frames_go_both_ways_in_every_shard_and_stun_is_answered_on_the_same_port() {
    let server = serve_on(&["127.0.0.1"]);
    let (relay, key) = (server.addresses()[0], server.ticket_key());
    // Every shard, with numbers that differ in either half.
    for session in [0, 1, 2, 3, 1 << 32, (1 << 40) + 7, u64::MAX / 4] {
        let [mut asker, mut other] = pair(&key, session, relay, relay);
        for number in 0..5_u8 {
            asker.send(&[number; 120]);
            assert_eq!(other.receive(), [number; 120]);
            other.send(&[number; 33]);
            assert_eq!(asker.receive(), [number; 33]);
        }
        assert!(stun_answers(relay));
    }
}

#[test]
fn the_two_sides_may_use_different_addresses_and_versions() {
    let server = serve_on(&["127.0.0.1", "127.0.0.2", "::1"]);
    let (addresses, key) = (server.addresses(), server.ticket_key());
    let mut session = 0;
    for one in &addresses {
        for another in &addresses {
            session += 1;
            let [mut asker, mut other] = pair(&key, session, *one, *another);
            asker.send(b"there");
            assert_eq!(other.receive(), b"there");
            other.send(b"and back");
            assert_eq!(asker.receive(), b"and back");
        }
    }
}

#[test]
fn on_all_addresses_each_side_is_answered_from_the_one_it_uses() {
    let server = serve_on(&[]);
    let (port, key) = (server.addresses()[0].port(), server.ticket_key());
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    for (session, (one, another)) in [("127.0.0.1", "127.0.0.9"), ("127.0.0.7", "::1")]
        .into_iter()
        .enumerate()
    {
        let [mut asker, mut other] = pair(&key, session as u64, at(one), at(another));
        // `Side` checks where answers and frames come from.
        for _ in 0..3 {
            asker.send(b"there");
            assert_eq!(other.receive(), b"there");
            other.send(b"and back");
            assert_eq!(asker.receive(), b"and back");
        }
    }
}

#[test]
fn runs_arrive_unmerged_whole_and_in_order() {
    let server = serve_on(&["127.0.0.1", "::1"]);
    let (addresses, key) = (server.addresses(), server.ticket_key());
    for (session, to) in addresses.iter().enumerate() {
        let [mut asker, other] = pair(&key, session as u64, addresses[0], *to);
        let run: Vec<u8> = (0..20_u8)
            .flat_map(|number| {
                // The last one is shorter.
                let length = if number == 19 { 50 } else { 120 };
                asker.frame(&vec![number; length])
            })
            .collect();
        send_run(&asker.socket, asker.relay, &run, DATA_HEADER + 120);
        for number in 0..20_u8 {
            let length = if number == 19 { 50 } else { 120 };
            assert_eq!(other.receive(), vec![number; length]);
        }
    }
}

/// The system takes them for one, and chooses a socket by the first.
#[test]
fn what_is_coalesced_and_does_not_belong_together_is_told_apart() {
    let server = serve_on(&["127.0.0.1"]);
    let (relay, key) = (server.addresses()[0], server.ticket_key());
    let mut pairs: Vec<[Side; 2]> = (0..6).map(|session| pair(&key, session, relay, relay)).collect();
    // All asked from one socket, so that their frames come from one address; the newest counter moves each side there.
    let common = socket("127.0.0.1");
    let mut stun = Vec::new();
    Request::new([9; 12]).encode(&mut stun);
    let length = stun.len();
    let payload = |number: usize| vec![number as u8; length - DATA_HEADER];
    for stun_first in [true, false] {
        let mut run = Vec::new();
        if stun_first {
            run.extend(&stun);
        }
        for (number, [asker, _]) in pairs.iter_mut().enumerate() {
            run.extend(asker.frame(&payload(number)));
        }
        if !stun_first {
            run.extend(&stun);
        }
        send_run(&common, relay, &run, length);
        for (number, [_, other]) in pairs.iter().enumerate() {
            assert_eq!(other.receive(), payload(number));
        }
        assert!(matches!(
            Response::decode(&receive(&common).0),
            Ok(Response::Success { .. })
        ));
    }
}

/// What the main loop does for tunnels: frames go in, and come out for it to send.
#[test]
fn a_side_in_a_tunnel_plays_with_one_on_udp() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let main = MainSocket::bind(SocketName::Udp4, "127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let key = TicketKey::new(&[5; 32]);
        let config = ForwarderConfig {
            limits: RelayLimits::default(),
            shards: Some(3),
        };
        let forwarder = Forwarder::start(&config, &[&main]).unwrap();
        forwarder
            .relay()
            .set_ticket_key(Instant::now(), key.clone(), relay_kit::ticket_time());
        let tunnel = Way {
            socket: SocketName::Tunnel(4),
            address: "192.0.2.7:443".parse().unwrap(),
            local_ip: None,
        };
        for session in 0..6 {
            let inside = grant(session, true);
            assert!(forwarder.hand_in(tunnel, &bind_frame(&key, &inside)));
            let answer = next_for_tunnel(&forwarder, tunnel).await;
            let bound = Bound::decode(&answer).unwrap();
            assert_eq!((bound.refusal, bound.observed), (None, tunnel.address));
            // What it sends before the other side is there waits.
            assert!(forwarder.hand_in(tunnel, &data_frame(&inside, 1, b"early")));
            let mut outside = Side::new(&key, session, false, main.local_address());
            assert_eq!(outside.receive(), b"early");
            assert!(forwarder.hand_in(tunnel, &data_frame(&inside, 2, b"there")));
            assert_eq!(outside.receive(), b"there");
            outside.send(b"and back");
            let frame = next_for_tunnel(&forwarder, tunnel).await;
            assert_eq!(DataHeader::decode(&frame).unwrap().1, b"and back");
        }
        assert!(!forwarder.hand_in(tunnel, &[0x40; 1_200]), "QUIC is not the relay's");
        assert_eq!((forwarder.shards(), forwarder.relay().counters().sessions), (3, 6));
        assert_eq!(
            forwarder.relay().max_sessions(),
            RelayLimits::default().max_sessions as u64
        );
    });
}

async fn next_for_tunnel(forwarder: &Forwarder, tunnel: Way) -> Vec<u8> {
    tokio::time::timeout(PATIENCE, forwarder.ready()).await.unwrap();
    let mut taken = Vec::new();
    forwarder.take(|handed, frame| {
        assert_eq!(handed, Handed::ToTunnel(tunnel));
        taken.push(frame.to_vec());
    });
    assert_eq!(taken.len(), 1);
    taken.remove(0)
}

#[test]
fn what_is_not_right_goes_nowhere_and_unknown_sessions_are_told_in_fewer_bytes() {
    let server = serve_on(&["127.0.0.1"]);
    let (relay, key) = (server.addresses()[0], server.ticket_key());
    let [mut asker, other] = pair(&key, 5, relay, relay);
    let mut forged = asker.frame(b"forged");
    forged[DATA_HEADER - 1] ^= 1;
    let genuine = asker.frame(b"once");
    let foreign = bind_frame(&TicketKey::new(&[3; 32]), &grant(5, true));
    for frame in [&forged, &genuine, &genuine, &foreign, &genuine[..20].to_vec()] {
        asker.socket.send_to(frame, relay).unwrap();
    }
    let unknown = data_frame(&grant(99, true), 4, b"");
    asker.socket.send_to(&unknown, relay).unwrap();
    let (answer, _) = receive(&asker.socket);
    let gone = Gone::decode(&answer).unwrap();
    assert_eq!((gone.refusal, gone.session, gone.counter), (Refusal::Unknown, 99, 4));
    assert!(answer.len() == GONE_LENGTH && answer.len() <= unknown.len());
    // Of all that, one frame came through; then the next one.
    asker.send(b"last");
    assert_eq!(other.receive(), b"once");
    assert_eq!(other.receive(), b"last");
}

#[test]
fn a_port_that_a_server_shares_among_its_threads_is_taken_for_everybody_else() {
    let server = serve_on(&["127.0.0.1"]);
    let port = server.addresses()[0].port().to_string();
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let error = Serving::start(program(), &["--listen", listen, "--port", &port])
            .err()
            .unwrap();
        assert!(error.contains(&port) && error.contains("in use"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(UdpSocket::bind(server.addresses()[0]).is_err());
}

#[test]
fn a_server_that_relays_ends_as_cleanly_as_one_that_does_not() {
    for relay in ["on", "off"] {
        let mut server = serve(&[
            "--listen",
            "127.0.0.1",
            "--port",
            "0",
            "--alt-port",
            "0",
            "--relay",
            relay,
        ]);
        let address = server.addresses()[0];
        assert!(stun_answers(address));
        if relay == "on" {
            let [mut asker, other] = pair(&server.ticket_key(), 1, address, address);
            asker.send(b"x");
            assert_eq!(other.receive(), b"x");
        }
        let id = server.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        // The port is free again at once.
        drop(UdpSocket::bind(address).unwrap());
    }
}
