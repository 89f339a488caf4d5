//! STUN on every socket: tells whoever asks which address it has (RFC 8489), also from the second port or address, so
//! that NATs can be told apart (RFC 5780).
//!
//! In: STUN datagrams. Out: answers of at most 96 bytes, or of the length of a request with PADDING. The askers are strangers
//! whose source address nothing has proven: answers are limited by address and network ([`super::limits`]), also those to
//! another port of the asker's address (RESPONSE-PORT). What is not a well-formed binding request is never answered.
//!
//! **The second address** of a socket is that of another one of the same family, on a specific address of the same reach that the asker can
//! reach too: an answer from an address that is lost on the way would pass for one that the asker's router filtered.
//!
//! **OTHER-ADDRESS** promises another address and another port (RFC 5780, section 7.4): foreign clients draw conclusions from
//! both. A server with one address names its second port alone there only to those who ask for a cookie: our own clients, which
//! compare the addresses.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::cookies::Cookies;
use super::limits::StunLimits;
use super::{ServerSocket, is_tunnel};
use crate::engine::{Datagram, SocketName, Transmit};
use crate::scope::{Scope, scope};
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
    response: Response,
    /// The length to fill it up to; 0: its own.
    padded: usize,
}

/// Answers STUN.
pub struct Reflector {
    sockets: Vec<ServerSocket>,
    cookies: Cookies,
    limits: StunLimits,
    waiting: VecDeque<Answer>,
}

impl Reflector {
    /// One for those sockets.
    pub fn new(sockets: Vec<ServerSocket>, cookies: Cookies) -> Self {
        Self {
            sockets,
            cookies,
            limits: StunLimits::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes a datagram that looks like STUN.
    pub fn handle(&mut self, now: Instant, datagram: &Datagram) -> Outcome {
        if is_tunnel(datagram.socket) {
            return self.handle_tunnelled(now, datagram);
        }
        let arrived_on = self
            .sockets
            .iter()
            .find(|socket| socket.name == datagram.socket)
            .copied();
        let usable = datagram.source.port() != 0 && scope(datagram.source.ip()) != Scope::Unusable;
        let (Some(arrived_on), true, Ok(request)) = (arrived_on, usable, Request::decode(&datagram.contents)) else {
            return Outcome::Invalid;
        };
        // An answer that is filled up past 96 bytes is as large as its request, and still more than anybody needs often.
        let padded = datagram.contents.len() >= MAX_RESPONSE && request.padding.is_none();
        if self.waiting.len() >= MAX_WAITING || !self.limits.allow(now, datagram.source.ip(), padded) {
            return Outcome::Limited;
        }
        let (socket, response) = self.answer(now, &arrived_on, datagram, &request);
        // An error goes to whoever made it.
        let port = match (&response, request.response_port) {
            (Response::Success { .. }, Some(port)) => port,
            _ => datagram.source.port(),
        };
        self.waiting.push_back(Answer {
            socket,
            destination: SocketAddr::new(datagram.source.ip(), port),
            response,
            padded: request.padding.map_or(0, |_| datagram.contents.len()),
        });
        Outcome::Answered
    }

    /// A request that came by a TLS stream shows the address of a TCP connection: no fact about UDP follows from it. It is answered plainly, without
    /// a cookie (that would prove an address for UDP), and never from elsewhere.
    fn handle_tunnelled(&mut self, now: Instant, datagram: &Datagram) -> Outcome {
        let Ok(request) = Request::decode(&datagram.contents) else {
            return Outcome::Invalid;
        };
        let padded = datagram.contents.len() >= MAX_RESPONSE;
        if self.waiting.len() >= MAX_WAITING || !self.limits.allow(now, datagram.source.ip(), padded) {
            return Outcome::Limited;
        }
        let transaction = request.transaction;
        let plain = request.change == ChangeRequest::default() && request.padding.is_none();
        let response = match plain && request.response_port.is_none() {
            _ if !request.unknown.is_empty() => Response::unknown_attributes(transaction, request.unknown),
            false => Response::bad_request(transaction),
            true => Response::Success {
                transaction,
                mapped: datagram.source,
                origin: None,
                other: None,
                cookie: None,
            },
        };
        self.waiting.push_back(Answer {
            socket: datagram.socket,
            destination: datagram.source,
            response,
            padded: 0,
        });
        Outcome::Answered
    }

    fn answer(
        &self,
        now: Instant,
        arrived_on: &ServerSocket,
        datagram: &Datagram,
        request: &Request,
    ) -> (SocketName, Response) {
        let transaction = request.transaction;
        let unknown = |unknown| (arrived_on.name, Response::unknown_attributes(transaction, unknown));
        if !request.unknown.is_empty() {
            return unknown(request.unknown);
        }
        if request.padding.is_some() && request.response_port.is_some() {
            return (arrived_on.name, Response::bad_request(transaction));
        }
        let (asker, local_ip) = (datagram.source.ip(), datagram.destination_ip);
        let Some(from) = self.partner(arrived_on, request.change, asker) else {
            return unknown(UnknownAttributes::from_iter([CHANGE_REQUEST]));
        };
        let other = self.partner(arrived_on, BOTH, asker).or_else(|| match request.cookie {
            true => self.partner(arrived_on, PORT, asker),
            false => None,
        });
        let cookie = request.cookie && request.response_port.is_none();
        let response = Response::Success {
            transaction,
            mapped: datagram.source,
            origin: from.address_for(asker, local_ip),
            other: other.and_then(|other| other.address_for(asker, local_ip)),
            cookie: cookie.then(|| self.cookies.cookie(now, datagram.source)),
        };
        (from.name, response)
    }

    /// The socket that differs from `from` in exactly what is asked for, as `asker` can use it.
    fn partner(&self, from: &ServerSocket, change: ChangeRequest, asker: IpAddr) -> Option<&ServerSocket> {
        self.sockets.iter().find(|socket| {
            socket.bound.is_ipv4() == from.bound.is_ipv4()
                && (socket.bound.ip() != from.bound.ip()) == change.ip
                && (socket.main != from.main) == change.port
                && (!change.ip || from.is_second_address(socket, asker))
        })
    }

    /// Further addresses at which a node that reaches the server on `socket` finds STUN, each with the reason for which it is
    /// there, in this order: the second port; the second address; the second port there; then what the server knows of its
    /// addresses in the other IP version, first ports before second ports.
    pub fn other_addresses(&self, socket: SocketName, node: IpAddr, local_ip: Option<IpAddr>) -> Vec<SocketAddr> {
        let Some(used) = self.sockets.iter().find(|known| known.name == socket) else {
            return Vec::new();
        };
        let same_version = [PORT, ADDRESS, BOTH]
            .into_iter()
            .filter_map(|change| self.partner(used, change, node))
            .filter_map(|other| other.address_for(node, local_ip));
        let other_version = [true, false].into_iter().flat_map(|main| {
            self.sockets
                .iter()
                .filter(move |other| other.main == main && other.bound.is_ipv4() != used.bound.is_ipv4())
                .filter_map(|other| other.address_for(node, None))
                .filter(|address| reaches(node, address.ip()))
        });
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in same_version.chain(other_version) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The next answer.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let answer = self.waiting.pop_front()?;
        let before = buffer.len();
        answer.response.encode_padded(buffer, answer.padded);
        Some(Transmit {
            socket: answer.socket,
            destination: answer.destination,
            ecn: None,
            size: buffer.len() - before,
            segment_size: None,
            time_to_live: None,
        })
    }
}

const PORT: ChangeRequest = ChangeRequest { ip: false, port: true };
const ADDRESS: ChangeRequest = ChangeRequest { ip: true, port: false };
const BOTH: ChangeRequest = ChangeRequest { ip: true, port: true };

/// Whether one at `node`, as the server sees it, can be expected to reach the server at `address`.
fn reaches(node: IpAddr, address: IpAddr) -> bool {
    match (scope(node), scope(address)) {
        (_, Scope::Unusable) => false,
        (_, Scope::Global) | (Scope::Loopback, Scope::Loopback) => true,
        (node, Scope::Private) => matches!(node, Scope::Private | Scope::Loopback),
        (_, Scope::Loopback) => false,
    }
}

impl ServerSocket {
    /// Whether `other` can serve as this one's second address for `asker`.
    fn is_second_address(&self, other: &ServerSocket, asker: IpAddr) -> bool {
        let [own, other] = [self, other].map(|socket| socket.address_for(asker, None));
        match (own, other) {
            (Some(own), Some(other)) => {
                own.ip() != other.ip()
                    && scope(own.ip()) == scope(other.ip())
                    && reaches(asker, own.ip())
                    && reaches(asker, other.ip())
            }
            _ => false,
        }
    }

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

    use super::super::limits::{STUN_PADDED_PER_ADDRESS, STUN_PER_ADDRESS};
    use super::*;
    use crate::wire::stun::Cookie;
    use crate::wire::stun::raw::{Builder, attribute};

    const CLIENT: &str = "203.0.113.1:4000";

    fn socket(name: SocketName, bound: &str, main: bool) -> ServerSocket {
        ServerSocket {
            name,
            bound: bound.parse().unwrap(),
            public: None,
            main,
        }
    }

    fn reflector(sockets: Vec<ServerSocket>) -> Reflector {
        Reflector::new(sockets, Cookies::new(Instant::now(), &[1; 32]))
    }

    fn two_ports() -> Reflector {
        reflector(vec![
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
        encoded(Request::with_change([7; 12], change))
    }

    fn encoded(request: Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        bytes
    }

    fn answer(reflector: &mut Reflector) -> (Transmit, Response) {
        let mut buffer = Vec::new();
        let transmit = reflector.poll_transmit(&mut buffer).expect("an answer");
        assert_eq!(transmit.size, buffer.len());
        (transmit, Response::decode(&buffer).unwrap())
    }

    fn ask(reflector: &mut Reflector, change: ChangeRequest) -> (Transmit, Response) {
        let (transmit, response) = ask_with(reflector, &request(change));
        assert!(transmit.size <= MAX_RESPONSE);
        (transmit, response)
    }

    fn ask_with(reflector: &mut Reflector, request: &[u8]) -> (Transmit, Response) {
        let datagram = datagram(SocketName::Udp4, CLIENT, "198.51.100.1", request);
        assert_eq!(reflector.handle(Instant::now(), &datagram), Outcome::Answered);
        answer(reflector)
    }

    fn other_of(response: &Response) -> Option<SocketAddr> {
        match response {
            Response::Success { other, .. } => *other,
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_request_is_answered_with_the_source() {
        let (transmit, response) = ask(&mut two_ports(), ChangeRequest::default());
        assert_eq!(
            (transmit.socket, transmit.destination),
            (SocketName::Udp4, CLIENT.parse().unwrap())
        );
        let expected = Response::Success {
            transaction: [7; 12],
            mapped: CLIENT.parse().unwrap(),
            origin: Some("198.51.100.1:61111".parse().unwrap()),
            other: None,
            cookie: None,
        };
        assert_eq!(response, expected);
    }

    #[test]
    fn who_asks_for_a_cookie_gets_one_and_hears_of_the_second_port() {
        let mut reflector = two_ports();
        let (transmit, response) = ask_with(&mut reflector, &encoded(Request::new([7; 12]).with_cookie()));
        assert_eq!(transmit.size, MAX_RESPONSE);
        let Response::Success {
            other,
            cookie: Some(cookie),
            ..
        } = response
        else {
            panic!("{response:?}")
        };
        assert_eq!(other, Some("198.51.100.1:61112".parse().unwrap()));
        assert!(cookie != Cookie::default());
        let elsewhere = Request::new([7; 12]).with_cookie().with_response_port(4_001);
        let (_, response) = ask_with(&mut reflector, &encoded(elsewhere));
        assert!(
            matches!(response, Response::Success { cookie: None, .. }),
            "{response:?}"
        );
    }

    #[test]
    fn another_port_of_the_asker_can_be_answered() {
        let request = Request::with_change([7; 12], PORT).with_response_port(4_444);
        let (transmit, response) = ask_with(&mut two_ports(), &encoded(request));
        assert_eq!(transmit.destination, "203.0.113.1:4444".parse().unwrap());
        assert_eq!(transmit.socket, SocketName::Listen(0));
        assert!(matches!(response, Response::Success { mapped, .. } if mapped == CLIENT.parse().unwrap()));
    }

    #[test]
    fn padded_requests_are_answered_with_as_much_and_no_more() {
        let padded = |bytes: usize, response_port: bool| {
            let mut request = Vec::new();
            let mut builder = Builder::new(&mut request, 1, &[7; 12]);
            if response_port {
                builder = builder.attribute(attribute::RESPONSE_PORT, &[9, 9, 0, 0]);
            }
            builder.attribute(attribute::PADDING, &vec![0; bytes]);
            request
        };
        for bytes in [4, 96, 500, 1_500] {
            let request = padded(bytes, false);
            let (transmit, _) = ask_with(&mut two_ports(), &request);
            assert!(transmit.size <= request.len().max(MAX_RESPONSE));
            assert_eq!(transmit.size == request.len(), bytes >= 96, "{bytes}");
        }
        let (transmit, response) = ask_with(&mut two_ports(), &padded(1_000, true));
        assert!(matches!(response, Response::Error { code: 400, .. }), "{response:?}");
        assert_eq!(transmit.destination, CLIENT.parse().unwrap());
    }

    #[test]
    fn the_second_port_answers_when_asked_to() {
        let (transmit, response) = ask(&mut two_ports(), ChangeRequest { ip: false, port: true });
        assert_eq!(transmit.socket, SocketName::Listen(0));
        let Response::Success { origin, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!(origin, Some("198.51.100.1:61112".parse().unwrap()));
    }

    #[test]
    fn ipv6_is_answered_within_the_bound_from_the_second_port_too() {
        let mut reflector = two_ports();
        let bytes = request(ChangeRequest { ip: false, port: true });
        let asked = datagram(SocketName::Udp6, "[2001:db8::9]:4000", "2001:db8::1", &bytes);
        assert_eq!(reflector.handle(Instant::now(), &asked), Outcome::Answered);
        let (transmit, response) = answer(&mut reflector);
        assert_eq!(transmit.socket, SocketName::Listen(1));
        let Response::Success { mapped, origin, .. } = response else {
            panic!("{response:?}")
        };
        assert_eq!(mapped, "[2001:db8::9]:4000".parse().unwrap());
        assert_eq!(origin, Some("[2001:db8::1]:61112".parse().unwrap()));
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

        let mut one_port = reflector(vec![socket(SocketName::Udp4, "0.0.0.0:61111", true)]);
        let (_, response) = ask(&mut one_port, ChangeRequest { ip: false, port: true });
        assert!(matches!(response, Response::Error { code: 420, .. }));
        let (_, response) = ask(&mut one_port, ChangeRequest::default());
        assert!(matches!(response, Response::Success { other: None, .. }));
    }

    fn two_addresses(first: &str, second: &str) -> Reflector {
        let address = |ip: &str, port| format!("{ip}:{port}");
        reflector(vec![
            socket(SocketName::Udp4, &address(first, 61_111), true),
            socket(SocketName::Listen(0), &address(second, 61_111), true),
            socket(SocketName::Listen(1), &address(first, 61_112), false),
            socket(SocketName::Listen(2), &address(second, 61_112), false),
        ])
    }

    #[test]
    fn a_server_with_two_addresses_answers_from_each() {
        let mut reflector = two_addresses("198.51.100.1", "198.51.100.2");
        let addresses = [
            "198.51.100.1:61111",
            "198.51.100.2:61111",
            "198.51.100.1:61112",
            "198.51.100.2:61112",
        ];
        let names = [
            SocketName::Udp4,
            SocketName::Listen(0),
            SocketName::Listen(1),
            SocketName::Listen(2),
        ];
        // Asked at each of the four, for each change: bit 0 of a place is the address, bit 1 the port.
        for (asked, name) in names.into_iter().enumerate() {
            for change in 0..4 {
                let (ip, port) = (change & 1 != 0, change & 2 != 0);
                let datagram = datagram(name, CLIENT, "198.51.100.1", &request(ChangeRequest { ip, port }));
                assert_eq!(reflector.handle(Instant::now(), &datagram), Outcome::Answered);
                let (transmit, response) = answer(&mut reflector);
                assert_eq!(transmit.socket, names[asked ^ change]);
                let Response::Success { origin, other, .. } = response else {
                    panic!("{response:?}")
                };
                assert_eq!(origin, Some(addresses[asked ^ change].parse().unwrap()));
                assert_eq!(other, Some(addresses[asked ^ 3].parse().unwrap()));
            }
        }
        let others = reflector.other_addresses(SocketName::Udp4, "203.0.113.1".parse().unwrap(), None);
        let expected = [addresses[2], addresses[1], addresses[3]].map(|address| address.parse().unwrap());
        assert_eq!(others, expected);
    }

    #[test]
    fn an_address_that_the_asker_may_not_reach_is_no_second_address() {
        for (first, second, usable) in [
            ("198.51.100.1", "198.51.100.2", true),
            ("198.51.100.1", "10.0.0.1", false),
            ("198.51.100.1", "127.0.0.1", false),
            ("10.0.0.2", "10.0.0.1", false),
            ("198.51.100.1", "0.0.0.0", false),
        ] {
            let mut reflector = two_addresses(first, second);
            let (_, response) = ask(&mut reflector, ChangeRequest::default());
            assert_eq!(other_of(&response).is_some(), usable, "{first} {second}");
            let (_, response) = ask(&mut reflector, ADDRESS);
            assert_eq!(matches!(response, Response::Success { .. }), usable, "{first} {second}");
        }
        // In its own network a server is reached at private addresses.
        let mut private = two_addresses("10.0.0.2", "10.0.0.1");
        let asked = datagram(SocketName::Udp4, "10.0.0.9:4000", "10.0.0.2", &request(BOTH));
        assert_eq!(private.handle(Instant::now(), &asked), Outcome::Answered);
        assert_eq!(answer(&mut private).0.socket, SocketName::Listen(2));
    }

    #[test]
    fn two_listen_addresses_behind_one_public_one_are_one() {
        let mut reflector = two_addresses("10.0.0.1", "10.0.0.2");
        for socket in &mut reflector.sockets {
            socket.public = Some(SocketAddr::new("192.0.2.5".parse().unwrap(), socket.bound.port()));
        }
        let (_, response) = ask(&mut reflector, ChangeRequest::default());
        assert_eq!(other_of(&response), None);
    }

    #[test]
    fn a_node_is_told_where_it_can_prove_its_other_ip_version() {
        let mut sockets = two_addresses("198.51.100.1", "198.51.100.2").sockets;
        sockets.extend([
            socket(SocketName::Udp6, "[::]:61111", true),
            socket(SocketName::Listen(3), "[::]:61112", false),
            socket(SocketName::Listen(4), "[2001:db8::1]:61111", true),
            socket(SocketName::Listen(5), "[2001:db8::1]:61112", false),
        ]);
        let reflector = reflector(sockets);
        let texts = |socket, node: &str| -> Vec<String> {
            reflector
                .other_addresses(socket, node.parse().unwrap(), None)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            texts(SocketName::Udp4, "203.0.113.1"),
            [
                "198.51.100.1:61112",
                "198.51.100.2:61111",
                "198.51.100.2:61112",
                "[2001:db8::1]:61111",
                "[2001:db8::1]:61112"
            ]
        );
        assert_eq!(
            texts(SocketName::Listen(4), "2001:db8:9::1"),
            [
                "[2001:db8::1]:61112",
                "198.51.100.1:61111",
                "198.51.100.2:61111",
                "198.51.100.1:61112",
                "198.51.100.2:61112"
            ]
        );
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
        let now = Instant::now();
        let bare = &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7][..];
        let mut large = Vec::new();
        Builder::new(&mut large, 1, &[7; 12]).attribute(attribute::PADDING, &[0; 1_000]);
        let other_port = encoded(Request::new([7; 12]).with_response_port(1));
        for (contents, expected) in [
            (bare, STUN_PER_ADDRESS),
            (&large, STUN_PER_ADDRESS),
            (&request(ChangeRequest::default()), STUN_PADDED_PER_ADDRESS),
            (&other_port, STUN_PADDED_PER_ADDRESS),
        ] {
            let mut reflector = two_ports();
            let datagram = datagram(SocketName::Udp4, CLIENT, "198.51.100.1", contents);
            let outcomes: Vec<Outcome> = (0..2_000).map(|_| reflector.handle(now, &datagram)).collect();
            let (answered, limited) = outcomes.split_at(expected as usize);
            assert!(answered.iter().all(|outcome| *outcome == Outcome::Answered));
            assert!(limited.iter().all(|outcome| *outcome == Outcome::Limited));
        }
    }
}
