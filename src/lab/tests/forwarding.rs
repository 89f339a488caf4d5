//! Forwarded ports: what programs are granted, and what gets in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::{
    DropReason, Families, Lab, LabEngine, Link, MappingService, Outputs, PortMappingConfig, RouterConfig, Translation,
};
use super::*;
use crate::codes::MappingProtocol;
use crate::engine::{Datagram, Engine, Transmit};
use crate::peer::api::nat::{MappingAnswer, MappingFailure, MappingId, MappingOrder};
use crate::peer::api::{SideEffect, SideEffectAnswer};

/// Asks routers what a test wants, notes what they say, and counts the datagrams that it receives. Answers each of them.
#[derive(Default)]
struct Asker {
    orders: Vec<MappingOrder>,
    answers: Vec<MappingAnswer>,
    received: Vec<(SocketName, SocketAddr)>,
    answered: usize,
}

impl Engine for Asker {
    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram) {
        self.received.push((datagram.socket, datagram.source));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, _now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (socket, destination) = *self.received.get(self.answered)?;
        self.answered += 1;
        buffer.extend_from_slice(b"answer");
        Some(Transmit {
            socket,
            destination,
            ecn: None,
            size: 6,
            segment_size: None,
            time_to_live: None,
        })
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
}

impl LabEngine for Asker {
    fn drain(&mut self, _reliable_room: bool, outputs: &mut Outputs) {
        for order in self.orders.drain(..) {
            outputs.side_effect(SideEffect::MapPort(order));
        }
    }

    fn answer(&mut self, _now: Instant, answer: SideEffectAnswer) {
        if let SideEffectAnswer::Mapping(answer) = answer {
            self.answers.push(answer);
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(3);
/// The port of every asker's socket.
const INSIDE: u16 = 5000;

fn asker(lab: &mut Lab, name: &str, network: NetworkId) -> HostId {
    let host = lab.add_host(name, network, Link::lan(ms(1)));
    lab.open_socket(host, UDP, SocketAddr::from(([0, 0, 0, 0], INSIDE)));
    lab.start(host, |_| Asker::default());
    host
}

fn order(lab: &mut Lab, host: HostId, order: MappingOrder) {
    lab.with_engine(host, |asker: &mut Asker, _| asker.orders.push(order));
}

fn map(id: MappingId, protocol: MappingProtocol, external: u16, lifetime: u32) -> MappingOrder {
    MappingOrder::Map {
        id,
        protocol,
        internal: SocketAddr::from(([0, 0, 0, 0], INSIDE)),
        external,
        lifetime,
        timeout: TIMEOUT,
    }
}

/// What an order came to: the last word, and after how long.
fn outcome(lab: &mut Lab, host: HostId, wanted: MappingOrder) -> Option<(MappingAnswer, Duration)> {
    lab.with_engine(host, |asker: &mut Asker, _| asker.answers.clear());
    order(lab, host, wanted);
    let is_last = |answer: &&MappingAnswer| !matches!(answer, MappingAnswer::Progress { .. });
    let last = |lab: &Lab| lab.engine::<Asker>(host).answers.iter().find(is_last).cloned();
    let took = lab.run_until(4 * TIMEOUT, |lab| last(lab).is_some())?;
    Some((last(lab)?, took))
}

fn granted(lab: &mut Lab, host: HostId, wanted: MappingOrder) -> (SocketAddr, u32, Option<u32>) {
    match outcome(lab, host, wanted) {
        Some((
            MappingAnswer::Granted {
                external,
                lifetime,
                epoch,
                ..
            },
            _,
        )) => (external, lifetime, epoch),
        other => panic!("{other:?}"),
    }
}

fn speaking(protocol: MappingProtocol) -> RouterConfig {
    RouterConfig::port_restricted().with_port_mapping(PortMappingConfig::only(protocol))
}

/// Whether a stranger gets in at that address, and who sees the answer come from where.
fn enters(lab: &mut Lab, stranger: HostId, address: SocketAddr) -> Option<SocketAddr> {
    lab.take_received(stranger);
    send(lab, stranger, address);
    lab.take_received(stranger).pop().map(|received| received.source)
}

#[test]
fn a_granted_port_lets_strangers_in_and_answers_come_from_it() {
    for protocol in [MappingProtocol::Upnp, MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut lab = Lab::new(1);
        let stranger = observer(&mut lab, "stranger");
        let (router, lan) = router(&mut lab, speaking(protocol));
        let inside = asker(&mut lab, "inside", lan);
        let (external, lifetime, epoch) = granted(&mut lab, inside, map(1, protocol, 7000, 600));
        assert_eq!(external, SocketAddr::new(lab.public_addresses(router)[0], 7000));
        assert_eq!((lifetime, epoch.is_some()), (600, protocol != MappingProtocol::Upnp));
        assert_eq!(enters(&mut lab, stranger, external), Some(external), "{protocol:?}");
        order(&mut lab, inside, MappingOrder::Unmap { id: 1 });
        assert_eq!(enters(&mut lab, stranger, external), None, "{protocol:?}");
    }
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let mut lab = Lab::new(2);
    let stranger = observer(&mut lab, "stranger");
    let mut config = speaking(MappingProtocol::Pcp);
    config.port_mapping.longest_lifetime = 120;
    let (_, lan) = router(&mut lab, config);
    let inside = asker(&mut lab, "inside", lan);
    let wanted = || map(1, MappingProtocol::Pcp, 7000, 7_200);
    let (external, lifetime, _) = granted(&mut lab, inside, wanted());
    assert_eq!(lifetime, 120);
    lab.run_for(ms(100_000));
    assert_eq!(granted(&mut lab, inside, wanted()).0, external);
    lab.run_for(ms(100_000));
    assert!(enters(&mut lab, stranger, external).is_some(), "renewed");
    lab.run_for(ms(30_000));
    assert!(enters(&mut lab, stranger, external).is_none(), "over");
}

#[test]
fn a_port_that_is_taken_is_a_conflict_or_becomes_another_one() {
    for (protocol, second) in [
        (MappingProtocol::Upnp, None),
        (MappingProtocol::Pcp, Some(7001)),
        (MappingProtocol::NatPmp, Some(7001)),
    ] {
        let mut lab = Lab::new(3);
        let (_, lan) = router(&mut lab, speaking(protocol));
        let (one, other) = (asker(&mut lab, "one", lan), asker(&mut lab, "other", lan));
        assert_eq!(granted(&mut lab, one, map(1, protocol, 7000, 600)).0.port(), 7000);
        let (answer, _) = outcome(&mut lab, other, map(1, protocol, 7000, 600)).unwrap();
        match second {
            Some(port) => {
                assert!(matches!(answer, MappingAnswer::Granted { external, .. } if external.port() == port));
            }
            None => assert!(matches!(
                answer,
                MappingAnswer::Failed {
                    why: MappingFailure::Conflict,
                    ..
                }
            )),
        }
    }
}

#[test]
fn a_rebooted_router_has_forgotten_its_leases_but_not_what_was_set_by_hand() {
    let mut lab = Lab::new(4);
    let stranger = observer(&mut lab, "stranger");
    let (router, lan) = router(&mut lab, speaking(MappingProtocol::NatPmp));
    let (inside, by_hand) = (asker(&mut lab, "inside", lan), asker(&mut lab, "by hand", lan));
    let address = lab.socket_address(by_hand, UDP);
    let fixed = lab.forward_port(router, 8000, address);
    lab.run_for(ms(60_000));
    let wanted = || map(1, MappingProtocol::NatPmp, 7000, 600);
    let (external, _, before) = granted(&mut lab, inside, wanted());
    assert_eq!(before, Some(60));
    lab.reboot_router(router);
    assert!(enters(&mut lab, stranger, external).is_none());
    assert!(enters(&mut lab, stranger, fixed).is_some());
    let (_, _, after) = granted(&mut lab, inside, wanted());
    assert!(after < before, "{after:?}");
}

#[test]
fn silence_refusal_nonsense_and_an_endless_wait() {
    let cases = [
        (MappingService::Absent, Some((MappingFailure::Silent, TIMEOUT))),
        (MappingService::Refuses, Some((MappingFailure::Refused, ms(20)))),
        (
            MappingService::NoPublicAddress,
            Some((MappingFailure::NoPublicAddress, ms(20))),
        ),
        (MappingService::Garbage, Some((MappingFailure::Refused, ms(20)))),
        (MappingService::Hangs, None),
    ];
    for (service, expected) in cases {
        let mut lab = Lab::new(5);
        let config = PortMappingConfig::default().with(MappingProtocol::Upnp, service);
        let (_, lan) = router(&mut lab, RouterConfig::full_cone().with_port_mapping(config));
        let inside = asker(&mut lab, "inside", lan);
        let answer = outcome(&mut lab, inside, map(1, MappingProtocol::Upnp, 7000, 600));
        let told = answer.map(|(answer, took)| match answer {
            MappingAnswer::Failed { why, .. } => (why, took),
            other => panic!("{other:?}"),
        });
        assert_eq!(told, expected, "{service:?}");
    }
    // Without a router nobody answers either.
    let mut lab = Lab::new(5);
    let internet = lab.internet();
    let open = asker(&mut lab, "open", internet);
    let (answer, took) = outcome(&mut lab, open, map(1, MappingProtocol::Pcp, 7000, 600)).unwrap();
    assert!(
        matches!(
            answer,
            MappingAnswer::Failed {
                why: MappingFailure::Silent,
                ..
            }
        ) && took == TIMEOUT
    );
}

#[test]
fn the_inner_of_two_routers_tells_an_address_that_is_not_public() {
    let mut lab = Lab::new(6);
    let (outer, outer_lan) = router(&mut lab, RouterConfig::port_restricted());
    let inner = lab.add_router(outer_lan, speaking(MappingProtocol::Upnp), Link::lan(LATENCY));
    let inner_lan = lab.lan(inner);
    let stranger = observer(&mut lab, "stranger");
    let inside = asker(&mut lab, "inside", inner_lan);
    let (external, ..) = granted(&mut lab, inside, map(1, MappingProtocol::Upnp, 7000, 600));
    assert_eq!(external.ip(), lab.public_addresses(inner)[0]);
    // The outer one forwards by hand: both together let strangers in.
    let public = lab.forward_port(outer, 9000, external);
    assert_eq!(public.ip(), lab.public_addresses(outer)[0]);
    assert_eq!(enters(&mut lab, stranger, public), Some(public));
}

#[test]
fn a_router_may_tell_a_wrong_address() {
    let mut lab = Lab::new(7);
    let mut config = speaking(MappingProtocol::Pcp);
    let absurd: IpAddr = "0.0.0.0".parse().unwrap();
    config.port_mapping.claims = Some(absurd);
    let (_, lan) = router(&mut lab, config);
    let inside = asker(&mut lab, "inside", lan);
    let (external, ..) = granted(&mut lab, inside, map(1, MappingProtocol::Pcp, 7000, 600));
    assert_eq!(external, SocketAddr::new(absurd, 7000));
}

#[test]
fn pcp_opens_a_hole_in_an_ipv6_firewall() {
    const UDP6: SocketName = SocketName::Udp6;
    for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
        let mut lab = Lab::new(8);
        let config = RouterConfig {
            translation: Translation::Firewall,
            ..speaking(protocol)
        };
        let (_, lan) = router(&mut lab, config);
        let internet = lab.internet();
        let stranger = lab.add_host_with("stranger", internet, Link::internet(LATENCY), Families::V6);
        let inside = lab.add_host_with("inside", lan, Link::lan(LATENCY), Families::V6);
        let bound: SocketAddr = "[::]:5000".parse().unwrap();
        lab.open_socket(stranger, UDP6, bound);
        lab.start_raw(stranger);
        lab.open_socket(inside, UDP6, bound);
        lab.start(inside, |_| Asker::default());
        let address = lab.socket_address(inside, UDP6);
        let wanted = MappingOrder::Map {
            id: 1,
            protocol,
            internal: bound,
            external: 5000,
            lifetime: 600,
            timeout: TIMEOUT,
        };
        let (answer, _) = outcome(&mut lab, inside, wanted).unwrap();
        let opened = matches!(answer, MappingAnswer::Granted { external, .. } if external == address);
        assert_eq!(opened, protocol == MappingProtocol::Pcp, "{answer:?}");
        lab.send_raw(stranger, UDP6, address, b"?");
        lab.run_for(A_WHILE);
        assert_eq!(lab.received(stranger).len(), usize::from(opened));
    }
}

#[test]
fn outbound_datagrams_of_a_forwarded_socket_leave_by_its_port_where_mappings_depend_on_nothing() {
    let mut lab = Lab::new(9);
    let observer = observer(&mut lab, "observer");
    let (router, lan) = router(&mut lab, RouterConfig::port_restricted());
    let inside = raw(&mut lab, "inside", lan, INSIDE);
    let address = lab.socket_address(inside, UDP);
    let external = lab.forward_port(router, 8000, address);
    assert_eq!(seen(&mut lab, inside, observer, UDP), Some(external));
    // Nobody else gets that port.
    let neighbour = raw(&mut lab, "neighbour", lan, 8000);
    assert_eq!(seen(&mut lab, neighbour, observer, UDP).unwrap().port(), 8001);
    assert_eq!(lab.dropped(DropReason::NoMapping), 0);
}
