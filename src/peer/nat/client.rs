//! STUN transactions of a client: what was asked, and which datagrams are answers to it.
//!
//! In: questions, datagrams. Out: requests to send, answers. A datagram counts only if it has the random transaction id of an open
//! question, arrives on the socket and from the address where its answer belongs, and holds an address that a server at that place
//! can have seen. Everything else with such an id is forged: dropped, counted, and the question stays open.
//!
//! Each repeat of a question is a request of its own: which of them was answered tells the round trip, and whether the router
//! made the mapping when its turn in the order was. (RFC 8489 repeats the same request; to a server there is no difference.)

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::super::paths::may_send_to;
use crate::engine::SocketName;
use crate::scope::{Scope, scope};
use crate::wire::stun::{ChangeRequest, Cookie, Request, Response, TransactionId, is_request, peek_transaction};
use crate::wire::unmapped;

/// Questions without an answer that are remembered. A run asks fewer than 300 with all their repeats (18 samples and 5 others eight
/// times, 50 about filtering, 10 for hairpins), and one of lifetimes some 250 more; beyond that nothing is sent.
const MAX_OPEN: usize = 1_024;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<T> {
    /// What it is for; comes back with the answer.
    pub tag: T,
    /// Which repeat; 0: the first.
    pub repeat: u8,
    /// The socket that it leaves.
    pub socket: SocketName,
    /// Where it goes.
    pub to: SocketAddr,
    /// From where to answer.
    pub change: ChangeRequest,
    /// At which port to answer, instead of that of the socket.
    pub response_port: Option<u16>,
    /// Ask for a proof of the address.
    pub cookie: bool,
    /// The socket where the answer arrives.
    pub arrives_at: SocketName,
    /// The address that the answer comes from.
    pub arrives_from: SocketAddr,
}

impl<T> Ask<T> {
    /// A question that is answered from where it goes to, at the socket that it leaves.
    pub fn plain(tag: T, socket: SocketName, to: SocketAddr) -> Self {
        Self {
            tag,
            repeat: 0,
            socket,
            to,
            change: ChangeRequest::default(),
            response_port: None,
            cookie: false,
            arrives_at: socket,
            arrives_from: to,
        }
    }
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The address that it saw.
    pub mapped: SocketAddr,
    /// Its other address.
    pub other: Option<SocketAddr>,
    /// A proof for `mapped`.
    pub cookie: Option<Cookie>,
    /// From the request that it answers.
    pub round_trip: Duration,
    /// Which repeat it answers.
    pub repeat: u8,
}

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<T> {
    /// Nothing that was asked for here.
    Foreign,
    /// Forged, or damaged; counted.
    Dropped,
    /// The answer.
    Answer(T, Answer),
    /// The server cannot do it; the code says why.
    Refused(T, u16),
    /// A request to be answered from elsewhere was answered from a place that was not asked for: what stays silent after that proves
    /// nothing. Counted as dropped.
    FromElsewhere(T),
    /// A request of our own came back to one of our sockets (hairpin).
    Own(T),
}

/// Open questions.
#[derive(Debug)]
pub struct Client<T> {
    random: StdRng,
    open: BTreeMap<TransactionId, (Ask<T>, Instant)>,
    outbox: VecDeque<(SocketName, SocketAddr, Request)>,
    dropped: u64,
}

impl<T: Copy> Client<T> {
    /// One that asks nothing yet. Transaction ids come from `random`: it must not be guessable.
    pub fn new(random: StdRng) -> Self {
        Self {
            random,
            open: BTreeMap::new(),
            outbox: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Sends a request.
    pub fn ask(&mut self, now: Instant, ask: Ask<T>) {
        if self.open.len() >= MAX_OPEN {
            return;
        }
        let mut transaction = TransactionId::default();
        self.random.fill_bytes(&mut transaction);
        let mut request = Request::with_change(transaction, ask.change);
        if let Some(port) = ask.response_port.filter(|port| *port != 0) {
            request = request.with_response_port(port);
        }
        if ask.cookie {
            request = request.with_cookie();
        }
        self.outbox.push_back((ask.socket, ask.to, request));
        self.open.insert(transaction, (ask, now));
    }

    /// The next request to send.
    pub fn poll_request(&mut self) -> Option<(SocketName, SocketAddr, Request)> {
        self.outbox.pop_front()
    }

    /// Whether requests wait to be sent.
    pub fn has_requests(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Datagrams with ids of open questions that were no answers to them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a datagram.
    pub fn handle(&mut self, now: Instant, socket: SocketName, source: SocketAddr, contents: &[u8]) -> Heard<T> {
        let Some((transaction, (ask, sent))) = peek_transaction(contents).and_then(|transaction| {
            self.open
                .get(&transaction)
                .map(|(ask, sent)| (transaction, (*ask, *sent)))
        }) else {
            return Heard::Foreign;
        };
        if is_request(contents) {
            // Only a request that was sent to a socket of our own can come back.
            if socket == ask.arrives_at && ask.arrives_at != ask.socket && ask.response_port.is_none() {
                self.open.remove(&transaction);
                return Heard::Own(ask.tag);
            }
            return self.drop_it();
        }
        match Response::decode(contents) {
            Ok(Response::Error { code, .. }) if socket == ask.socket && source == ask.to => {
                self.open.remove(&transaction);
                Heard::Refused(ask.tag, code)
            }
            Ok(Response::Success { .. }) if source != ask.arrives_from && ask.change != ChangeRequest::default() => {
                self.dropped += 1;
                Heard::FromElsewhere(ask.tag)
            }
            // RESPONSE-PORT was not heeded.
            Ok(Response::Success { .. })
                if socket == ask.socket && socket != ask.arrives_at && ask.response_port.is_some() =>
            {
                self.dropped += 1;
                Heard::FromElsewhere(ask.tag)
            }
            Ok(Response::Success {
                mapped, other, cookie, ..
            }) if socket == ask.arrives_at && source == ask.arrives_from => {
                let mapped = unmapped(mapped);
                if !is_plausible(mapped, ask.to) {
                    return self.drop_it();
                }
                self.open.remove(&transaction);
                let answer = Answer {
                    mapped,
                    other: other.map(unmapped).filter(|other| is_plausible(*other, ask.to)),
                    cookie,
                    round_trip: now.saturating_duration_since(sent),
                    repeat: ask.repeat,
                };
                Heard::Answer(ask.tag, answer)
            }
            _ => self.drop_it(),
        }
    }

    fn drop_it(&mut self) -> Heard<T> {
        self.dropped += 1;
        Heard::Dropped
    }
}

/// Whether a server at `server` can have seen, or have, that address: one machine's, of the same IP version, and not a private one in
/// a server's mouth that is reached over the internet.
pub fn is_plausible(address: SocketAddr, server: SocketAddr) -> bool {
    is_in_reach(address, server) && address.is_ipv4() == server.is_ipv4()
}

/// The same, of whichever IP version.
pub fn is_in_reach(address: SocketAddr, server: SocketAddr) -> bool {
    let seen = scope(address.ip());
    let reaches = match scope(server.ip()) {
        Scope::Loopback => true,
        // Whoever answers from an unusable address does so on this very link (link-local).
        Scope::Private | Scope::Unusable => seen != Scope::Loopback,
        Scope::Global => seen == Scope::Global,
    };
    may_send_to(address) && reaches
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::wire::stun::UnknownAttributes;

    const SERVER: &str = "20.0.0.1:61111";
    const OTHER_PORT: &str = "20.0.0.1:61112";
    const MAPPED: &str = "20.0.7.1:4000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn client() -> Client<u8> {
        Client::new(StdRng::from_seed([3; 32]))
    }

    fn success(transaction: TransactionId, mapped: &str, other: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let response = Response::Success {
            transaction,
            mapped: address(mapped),
            origin: None,
            other: other.map(address),
            cookie: None,
        };
        response.encode(&mut bytes);
        bytes
    }

    fn asked(client: &mut Client<u8>, now: Instant, ask: Ask<u8>) -> TransactionId {
        client.ask(now, ask);
        let (socket, to, request) = client.poll_request().unwrap();
        assert_eq!((socket, to), (ask.socket, ask.to));
        request.transaction
    }

    #[test]
    fn an_answer_counts_once_and_tells_the_round_trip() {
        let (now, mut client) = (Instant::now(), client());
        let ask = Ask::plain(7, SocketName::Birthday(1), address(SERVER));
        let transaction = asked(&mut client, now, Ask { repeat: 2, ..ask });
        let later = now + Duration::from_millis(80);
        let bytes = success(transaction, MAPPED, Some(OTHER_PORT));
        let expected = Answer {
            mapped: address(MAPPED),
            other: Some(address(OTHER_PORT)),
            cookie: None,
            round_trip: Duration::from_millis(80),
            repeat: 2,
        };
        let heard = client.handle(later, SocketName::Birthday(1), address(SERVER), &bytes);
        assert_eq!(heard, Heard::Answer(7, expected));
        let again = client.handle(later, SocketName::Birthday(1), address(SERVER), &bytes);
        assert_eq!(again, Heard::Foreign);
        assert_eq!(client.dropped(), 0);
    }

    #[test]
    fn what_is_forged_is_dropped_and_the_true_answer_still_counts() {
        let (now, mut client) = (Instant::now(), client());
        let socket = SocketName::Birthday(1);
        let transaction = asked(&mut client, now, Ask::plain(7, socket, address(SERVER)));
        let good = success(transaction, MAPPED, None);
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for (at, from, bytes) in [
            (socket, OTHER_PORT, &good),
            (socket, "20.0.9.9:61111", &good),
            (SocketName::Udp4, SERVER, &good),
            (socket, SERVER, &damaged),
            (socket, SERVER, &good[..20].to_vec()),
        ] {
            assert_eq!(client.handle(now, at, address(from), bytes), Heard::Dropped);
        }
        let mut echoed = Vec::new();
        Request::new(transaction).encode(&mut echoed);
        assert_eq!(client.handle(now, socket, address(SERVER), &echoed), Heard::Dropped);
        assert_eq!(client.dropped(), 6);
        let strange = success([0; 12], MAPPED, None);
        assert_eq!(client.handle(now, socket, address(SERVER), &strange), Heard::Foreign);
        let heard = client.handle(now, socket, address(SERVER), &good);
        assert!(matches!(heard, Heard::Answer(7, _)));
    }

    #[test]
    fn absurd_addresses_are_refused() {
        let (now, mut client) = (Instant::now(), client());
        let socket = SocketName::Birthday(1);
        let transaction = asked(&mut client, now, Ask::plain(7, socket, address(SERVER)));
        let absurd = [
            "0.0.0.0:4000",
            "20.0.7.1:0",
            "127.0.0.1:4000",
            "192.168.1.2:4000",
            "169.254.1.1:4000",
            "100.64.0.1:4000",
            "224.0.0.1:4000",
            "255.255.255.255:4000",
            "0.1.2.3:4000",
            "240.0.0.1:4000",
            "[2a00::1]:4000",
            "[::ffff:10.0.0.1]:4000",
        ];
        for mapped in absurd {
            let bytes = success(transaction, mapped, None);
            assert_eq!(
                client.handle(now, socket, address(SERVER), &bytes),
                Heard::Dropped,
                "{mapped}"
            );
        }
        // An absurd other address is left out: nobody is sent there.
        let bytes = success(transaction, MAPPED, Some("192.168.1.1:61112"));
        let heard = client.handle(now, socket, address(SERVER), &bytes);
        assert!(matches!(heard, Heard::Answer(7, Answer { other: None, .. })));
    }

    #[test]
    fn addresses_fit_the_place_of_the_server() {
        for (mapped, server, expected) in [
            ("127.0.0.1:1", "127.0.0.1:2", true),
            ("192.168.1.2:1", "192.168.1.1:2", true),
            ("192.168.1.2:1", "100.64.0.1:2", true),
            ("169.254.1.2:1", "169.254.1.1:2", true),
            ("127.0.0.1:1", "169.254.1.1:2", false),
            ("[fe80::2]:1", "[fe80::1]:2", true),
            ("127.0.0.1:1", "192.168.1.1:2", false),
            ("20.0.7.1:1", "192.168.1.1:2", true),
            ("[fd00::1]:1", "[2a00::1]:2", false),
            ("[4000::1]:1", "[2a00::1]:2", false),
            ("[2a00::1]:1", "[2a00::2]:2", true),
        ] {
            assert_eq!(
                is_plausible(address(mapped), address(server)),
                expected,
                "{mapped} {server}"
            );
        }
    }

    #[test]
    fn changed_answers_come_from_the_changed_address() {
        let (now, mut client) = (Instant::now(), client());
        let socket = SocketName::Birthday(1);
        let ask = Ask {
            change: ChangeRequest { ip: false, port: true },
            arrives_from: address(OTHER_PORT),
            ..Ask::plain(7, socket, address(SERVER))
        };
        let transaction = asked(&mut client, now, ask);
        let bytes = success(transaction, MAPPED, None);
        // A server that does not know the attribute, and does not say so.
        assert_eq!(
            client.handle(now, socket, address(SERVER), &bytes),
            Heard::FromElsewhere(7)
        );
        assert_eq!(client.dropped(), 1);
        let heard = client.handle(now, socket, address(OTHER_PORT), &bytes);
        assert!(matches!(heard, Heard::Answer(7, _)));
        // One that says so.
        let transaction = asked(&mut client, now, ask);
        let mut refusal = Vec::new();
        Response::unknown_attributes(transaction, UnknownAttributes::from_iter([3])).encode(&mut refusal);
        assert_eq!(
            client.handle(now, socket, address(OTHER_PORT), &refusal),
            Heard::Dropped
        );
        assert_eq!(
            client.handle(now, socket, address(SERVER), &refusal),
            Heard::Refused(7, 420)
        );
    }

    #[test]
    fn an_answer_at_the_asking_socket_shows_that_the_port_was_not_heeded() {
        let (now, mut client) = (Instant::now(), client());
        let (asker, target) = (SocketName::Birthday(1), SocketName::Udp4);
        let ask = Ask {
            response_port: Some(7_000),
            arrives_at: target,
            ..Ask::plain(7, asker, address(SERVER))
        };
        let transaction = asked(&mut client, now, ask);
        let bytes = success(transaction, MAPPED, None);
        assert_eq!(
            client.handle(now, asker, address(SERVER), &bytes),
            Heard::FromElsewhere(7)
        );
        assert_eq!(
            client.handle(now, SocketName::Birthday(2), address(SERVER), &bytes),
            Heard::Dropped
        );
        assert_eq!(client.handle(now, target, address(OTHER_PORT), &bytes), Heard::Dropped);
        assert_eq!(client.dropped(), 3);
        assert!(matches!(
            client.handle(now, target, address(SERVER), &bytes),
            Heard::Answer(7, _)
        ));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (now, mut client) = (Instant::now(), client());
        for _ in 0..2 * MAX_OPEN {
            client.ask(now, Ask::plain(7, SocketName::Udp4, address(SERVER)));
        }
        assert_eq!(std::iter::from_fn(|| client.poll_request()).count(), MAX_OPEN);
    }
}
