//! STUN on every socket: tells whoever asks which address it has (RFC 8489), also from the second port or address, so
//! that NATs can be told apart (RFC 5780).
//!
//! In: STUN datagrams. Out: answers of at most 96 bytes. The askers are strangers whose source address nothing has
//! proven: answers are limited by address and network ([`super::limits`]). What is not a well-formed binding request
//! is never answered.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::ServerSocket;
use super::limits::StunLimits;
use super::scope::{Scope, scope};
use crate::engine::{Datagram, SocketName, Transmit};
use crate::wire::stun::{ChangeRequest, MAX_RESPONSE, Request, Response, UnknownAttributes};

/// Answers that wait to be sent. The shell drains after every batch of at most a few hundred datagrams.
const MAX_WAITING: usize = 4_096;

/// Type number of CHANGE-REQUEST (RFC 5780), for the error of a server that cannot honour it.
const CHANGE_REQUEST: u16 = 0x0003;

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered.
    Answered,
    /// It is over a limit.
    Limited,
    /// It is no binding request.
    Invalid,
}

struct Answer {
    socket: SocketName,
    destination: SocketAddr,
    length: usize,
    bytes: [u8; MAX_RESPONSE],
}

/// Answers STUN.
pub struct Reflector {
    sockets: Vec<ServerSocket>,
    limits: StunLimits,
    waiting: VecDeque<Answer>,
    scratch: Vec<u8>,
}

impl Reflector {
    /// One for those sockets.
    pub fn new(sockets: Vec<ServerSocket>) -> Self {
        Self {
            sockets,
            limits: StunLimits::new(),
            waiting: VecDeque::new(),
            scratch: Vec::with_capacity(MAX_RESPONSE),
        }
    }

    /// Takes a datagram that looks like STUN.
    pub fn handle(&mut self, now: Instant, datagram: &Datagram) -> Outcome {
        let arrived_on = self
            .sockets
            .iter()
            .find(|socket| socket.name == datagram.socket)
            .copied();
        let usable = datagram.source.port() != 0 && scope(datagram.source.ip()) != Scope::Unusable;
        let (Some(arrived_on), true, Ok(request)) = (arrived_on, usable, Request::decode(&datagram.contents)) else {
            return Outcome::Invalid;
        };
        if self.waiting.len() >= MAX_WAITING || !self.limits.allow(now, datagram.source.ip()) {
            return Outcome::Limited;
        }
        let (socket, response) = self.answer(&arrived_on, datagram, &request);
        self.scratch.clear();
        response.encode(&mut self.scratch);
        let mut answer = Answer {
            socket,
            destination: datagram.source,
            length: self.scratch.len().min(MAX_RESPONSE),
            bytes: [0; MAX_RESPONSE],
        };
        answer.bytes[..answer.length].copy_from_slice(&self.scratch[..answer.length]);
        self.waiting.push_back(answer);
        Outcome::Answered
    }

    fn answer(&self, arrived_on: &ServerSocket, datagram: &Datagram, request: &Request) -> (SocketName, Response) {
        if !request.unknown.is_empty() {
            return (
                arrived_on.name,
                Response::unknown_attributes(request.transaction, request.unknown),
            );
        }
        let Some(from) = self.partner(arrived_on, request.change) else {
            let unknown = UnknownAttributes::from_iter([CHANGE_REQUEST]);
            return (
                arrived_on.name,
                Response::unknown_attributes(request.transaction, unknown),
            );
        };
        let both = ChangeRequest { ip: true, port: true };
        let port_only = ChangeRequest { ip: false, port: true };
        let other = self
            .partner(arrived_on, both)
            .or_else(|| self.partner(arrived_on, port_only));
        let address = |socket: &ServerSocket| socket.address_for(datagram.source.ip(), datagram.destination_ip);
        let response = Response::Success {
            transaction: request.transaction,
            mapped: datagram.source,
            origin: address(from),
            other: other.and_then(address),
            cookie: None,
        };
        (from.name, response)
    }

    /// The socket that differs from `from` in exactly what is asked for.
    fn partner(&self, from: &ServerSocket, change: ChangeRequest) -> Option<&ServerSocket> {
        self.sockets.iter().find(|socket| {
            socket.bound.is_ipv4() == from.bound.is_ipv4()
                && (socket.bound.ip() != from.bound.ip()) == change.ip
                && (socket.main != from.main) == change.port
        })
    }

    /// Further addresses at which a node that reaches the server on `socket` finds STUN.
    pub fn other_addresses(&self, socket: SocketName, node: IpAddr, local_ip: Option<IpAddr>) -> Vec<SocketAddr> {
        let Some(used) = self.sockets.iter().find(|known| known.name == socket) else {
            return Vec::new();
        };
        let others = self
            .sockets
            .iter()
            .filter(|other| other.name != socket && other.bound.is_ipv4() == used.bound.is_ipv4());
        others.filter_map(|other| other.address_for(node, local_ip)).collect()
    }

    /// The next answer.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let answer = self.waiting.pop_front()?;
        buffer.extend_from_slice(&answer.bytes[..answer.length]);
        Some(Transmit {
            socket: answer.socket,
            destination: answer.destination,
            ecn: None,
            size: answer.length,
            segment_size: None,
            time_to_live: None,
        })
    }
}

impl ServerSocket {
    /// The address at which a node reaches this socket: the configured one; the bound one; or, if it is bound to all,
    /// the one that this node's packets were sent to. A node on the machine itself is not sent around by the public one.
    fn address_for(&self, node: IpAddr, local_ip: Option<IpAddr>) -> Option<SocketAddr> {
        let here = match (self.bound.ip().is_unspecified(), local_ip) {
            (false, _) => Some(self.bound),
            (true, Some(ip)) if ip.is_ipv4() == self.bound.is_ipv4() => Some(SocketAddr::new(ip, self.bound.port())),
            (true, _) => None,
        };
        match scope(node) {
            Scope::Loopback => here.or(self.public),
            _ => self.public.or(here),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::limits::STUN_PER_ADDRESS;
    use super::*;

    const CLIENT: &str = "203.0.113.1:4000";

    fn socket(name: SocketName, bound: &str, main: bool) -> ServerSocket {
        ServerSocket {
            name,
            bound: bound.parse().unwrap(),
            public: None,
            main,
        }
    }

    fn two_ports() -> Reflector {
        Reflector::new(vec![
            socket(SocketName::Udp4, "0.0.0.0:61111", true),
            socket(SocketName::Udp6, "[::]:61111", true),
            socket(SocketName::Listen(0), "0.0.0.0:61112", false),
            socket(SocketName::Listen(1), "[::]:61112", false),
        ])
    }

    fn datagram(socket: SocketName, source: &str, destination: &str, contents: &[u8]) -> Datagram {
        Datagram {
            socket,
            source: source.parse().unwrap(),
            destination_ip: Some(destination.parse().unwrap()),
            ecn: None,
            contents: BytesMut::from(contents),
        }
    }

    fn request(change: ChangeRequest) -> Vec<u8> {
        let mut bytes = Vec::new();
        Request::with_change([7; 12], change).encode(&mut bytes);
        bytes
    }

    fn answer(reflector: &mut Reflector) -> (Transmit, Response) {
        let mut buffer = Vec::new();
        let transmit = reflector.poll_transmit(&mut buffer).expect("an answer");
        assert_eq!(transmit.size, buffer.len());
        assert!(buffer.len() <= MAX_RESPONSE);
        (transmit, Response::decode(&buffer).unwrap())
    }

    fn ask(reflector: &mut Reflector, change: ChangeRequest) -> (Transmit, Response) {
        let datagram = datagram(SocketName::Udp4, CLIENT, "198.51.100.1", &request(change));
        assert_eq!(reflector.handle(Instant::now(), &datagram), Outcome::Answered);
        answer(reflector)
    }

    #[test]
    fn a_request_is_answered_with_the_source_and_both_ports() {
        let (transmit, response) = ask(&mut two_ports(), ChangeRequest::default());
        assert_eq!(
            (transmit.socket, transmit.destination),
            (SocketName::Udp4, CLIENT.parse().unwrap())
        );
        let expected = Response::Success {
            transaction: [7; 12],
            mapped: CLIENT.parse().unwrap(),
            origin: Some("198.51.100.1:61111".parse().unwrap()),
            other: Some("198.51.100.1:61112".parse().unwrap()),
            cookie: None,
        };
        assert_eq!(response, expected);
    }

    #[test]
    fn the_second_port_answers_when_asked_to() {
        let (transmit, response) = ask(&mut two_ports(), ChangeRequest { ip: false, port: true });
        assert_eq!(transmit.socket, SocketName::Listen(0));
        let Response::Success { origin, other, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!(origin, Some("198.51.100.1:61112".parse().unwrap()));
        assert_eq!(other, Some("198.51.100.1:61112".parse().unwrap()));
    }

    #[test]
    fn ipv6_is_answered_within_the_bound_from_the_second_port_too() {
        let mut reflector = two_ports();
        let bytes = request(ChangeRequest { ip: false, port: true });
        let asked = datagram(SocketName::Udp6, "[2001:db8::9]:4000", "2001:db8::1", &bytes);
        assert_eq!(reflector.handle(Instant::now(), &asked), Outcome::Answered);
        let (transmit, response) = answer(&mut reflector);
        assert_eq!(transmit.socket, SocketName::Listen(1));
        let Response::Success { mapped, other, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!(mapped, "[2001:db8::9]:4000".parse().unwrap());
        assert_eq!(other, Some("[2001:db8::1]:61112".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_changed_is_an_unknown_attribute() {
        let another_address = ChangeRequest { ip: true, port: false };
        let (transmit, response) = ask(&mut two_ports(), another_address);
        assert_eq!(transmit.socket, SocketName::Udp4);
        let Response::Error { code, unknown, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!((code, unknown.as_slice()), (420, &[CHANGE_REQUEST][..]));

        let mut one_port = Reflector::new(vec![socket(SocketName::Udp4, "0.0.0.0:61111", true)]);
        let (_, response) = ask(&mut one_port, ChangeRequest { ip: false, port: true });
        assert!(matches!(response, Response::Error { code: 420, .. }));
        let (_, response) = ask(&mut one_port, ChangeRequest::default());
        assert!(matches!(response, Response::Success { other: None, .. }));
    }

    #[test]
    fn a_server_with_two_addresses_answers_from_each() {
        let mut reflector = Reflector::new(vec![
            socket(SocketName::Udp4, "198.51.100.1:61111", true),
            socket(SocketName::Listen(0), "198.51.100.2:61111", true),
            socket(SocketName::Listen(1), "198.51.100.1:61112", false),
            socket(SocketName::Listen(2), "198.51.100.2:61112", false),
        ]);
        for (ip, port, expected) in [
            (true, false, SocketName::Listen(0)),
            (false, true, SocketName::Listen(1)),
            (true, true, SocketName::Listen(2)),
        ] {
            let (transmit, response) = ask(&mut reflector, ChangeRequest { ip, port });
            assert_eq!(transmit.socket, expected);
            let Response::Success { other, .. } = response else {
                panic!("{response:?}")
            };
            assert_eq!(other, Some("198.51.100.2:61112".parse().unwrap()));
        }
        let others = reflector.other_addresses(SocketName::Udp4, "203.0.113.1".parse().unwrap(), None);
        assert_eq!(others.len(), 3);
    }

    #[test]
    fn the_public_address_is_told_to_all_but_the_machine_itself() {
        let mut main = socket(SocketName::Udp4, "0.0.0.0:61111", true);
        main.public = Some("192.0.2.5:61111".parse().unwrap());
        let local_ip = Some("127.0.0.1".parse().unwrap());
        assert_eq!(main.address_for("203.0.113.1".parse().unwrap(), local_ip), main.public);
        assert_eq!(
            main.address_for("127.0.0.1".parse().unwrap(), local_ip),
            Some("127.0.0.1:61111".parse().unwrap())
        );
    }

    #[test]
    fn nothing_but_a_binding_request_is_answered() {
        let mut reflector = two_ports();
        let good = request(ChangeRequest::default());
        let mut response = good.clone();
        response[0] = 1;
        let mut bad_fingerprint = good.clone();
        *bad_fingerprint.last_mut().unwrap() ^= 1;
        let cases = [
            datagram(SocketName::Udp4, CLIENT, "198.51.100.1", &response),
            datagram(SocketName::Udp4, CLIENT, "198.51.100.1", &bad_fingerprint),
            datagram(SocketName::Udp4, CLIENT, "198.51.100.1", &good[..19]),
            datagram(SocketName::Udp4, "203.0.113.1:0", "198.51.100.1", &good),
            datagram(SocketName::Udp4, "224.0.0.1:53", "198.51.100.1", &good),
            datagram(SocketName::Birthday(0), CLIENT, "198.51.100.1", &good),
        ];
        for case in &cases {
            assert_eq!(reflector.handle(Instant::now(), case), Outcome::Invalid, "{case:?}");
        }
        assert_eq!(reflector.poll_transmit(&mut Vec::new()), None);
    }

    #[test]
    fn one_address_gets_so_many_answers_a_second() {
        let mut reflector = two_ports();
        let now = Instant::now();
        let datagram = datagram(
            SocketName::Udp4,
            CLIENT,
            "198.51.100.1",
            &request(ChangeRequest::default()),
        );
        let outcomes: Vec<Outcome> = (0..200).map(|_| reflector.handle(now, &datagram)).collect();
        let answered = outcomes.iter().filter(|outcome| **outcome == Outcome::Answered).count();
        assert_eq!(answered as u32, STUN_PER_ADDRESS);
        assert!(outcomes[20..].iter().all(|outcome| *outcome == Outcome::Limited));
    }
}
