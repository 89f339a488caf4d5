//! Two nodes through the C ABI on loopback: connect, talk, part; nodes that come and go; destroy in the middle of calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::time::{Duration, Instant};

use lanline::codes::{Code, EventType, SendMode};
use lanline::ffi::error::lanline_last_error;
use lanline::ffi::events::{lanline_poll, lanline_wait};
use lanline::ffi::nat::*;
use lanline::ffi::node::*;
use lanline::ffi::peers::*;
use lanline::ffi::relays::*;
use lanline::shell::record::{AddressRecord, EventRecord};

/// Far above anything that happens here; a test that fails should fail, not hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn last_error() -> String {
    let mut buffer = [0u8; 600];
    // SAFETY: the buffer has that size.
    let length = unsafe { lanline_last_error(buffer.as_mut_ptr().cast::<c_char>(), buffer.len() as u32) };
    String::from_utf8_lossy(&buffer[..length as usize]).into_owned()
}

#[track_caller]
fn ok(result: i32) {
    assert_eq!(result, 0, "{}", last_error());
}

/// An event with what it pointed to.
#[derive(Debug, Clone)]
struct Seen {
    kind: EventType,
    record: EventRecord,
    data: Vec<u8>,
    text: String,
}

struct Player {
    node: u32,
    guid: u64,
    seen: VecDeque<Seen>,
}

impl Player {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut NodeOptionsRecord)) -> Self {
        let (mut node, mut guid) = (0, 0);
        // SAFETY: all pointers are valid for the calls.
        unsafe {
            let mut options = std::mem::zeroed();
            lanline_node_options_init_sized(&mut options, size_of::<NodeOptionsRecord>() as u32);
            (options.app, options.app_len) = (c"abi".as_ptr(), 3);
            (options.bind, options.bind_len) = (c"127.0.0.1:0".as_ptr(), 11);
            change(&mut options);
            ok(lanline_node_create(&options, &mut node));
            ok(lanline_node_guid(node, &mut guid));
        }
        Self {
            node,
            guid,
            seen: VecDeque::new(),
        }
    }

    fn address(&self) -> AddressRecord {
        let mut address = AddressRecord::default();
        // SAFETY: valid for the call.
        ok(unsafe { lanline_node_address(self.node, &mut address) });
        address
    }

    fn poll(&mut self) -> usize {
        let mut events = [EventRecord::default(); 64];
        // SAFETY: room for 64.
        let count = unsafe { lanline_poll(self.node, events.as_mut_ptr(), size_of::<EventRecord>() as u32, 64) };
        assert!(count >= 0, "{}", last_error());
        for record in &events[..count as usize] {
            let bytes = |pointer: *const u8, length: u32| match length {
                0 => Vec::new(),
                // SAFETY: borrowed until the next poll.
                _ => unsafe { std::slice::from_raw_parts(pointer, length as usize) }.to_vec(),
            };
            self.seen.push_back(Seen {
                kind: EventType::from_number(record.r#type).unwrap(),
                record: *record,
                data: bytes(record.data, record.data_len),
                text: String::from_utf8(bytes(record.text.cast(), record.text_len)).unwrap(),
            });
        }
        count as usize
    }

    /// The next event of that kind; others before it are put away.
    #[track_caller]
    fn expect(&mut self, kind: EventType) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(seen) = self.seen.pop_front() {
                if seen.kind == kind {
                    return seen;
                }
                assert_ne!(seen.kind, EventType::Fatal, "{seen:?}");
            }
            assert!(Instant::now() < deadline, "no {kind:?}");
            // SAFETY: no pointers.
            unsafe { lanline_wait(self.node, 100) };
            self.poll();
        }
    }

    fn send(&self, peer: u64, mode: SendMode, data: &[u8]) -> i32 {
        // SAFETY: valid for the call.
        unsafe {
            lanline_send(
                self.node,
                peer,
                3,
                mode.number(),
                data.as_ptr().cast::<c_void>(),
                data.len() as u32,
            )
        }
    }

    fn destroy(self) {
        // SAFETY: no pointers.
        ok(unsafe { lanline_node_destroy(self.node, 1000) });
    }
}

fn connected() -> (Player, Player) {
    let (mut one, mut other) = (Player::new(), Player::new());
    let (address, mut request) = (other.address(), 0);
    // SAFETY: valid for the call.
    ok(unsafe { lanline_peer_connect(one.node, other.guid, &address, &mut request) });
    let event = one.expect(EventType::Connected);
    assert_eq!((event.record.request, event.record.peer), (request, other.guid));
    assert_eq!(event.record.address.port, address.port);
    let event = other.expect(EventType::Connected);
    assert_eq!((event.record.request, event.record.peer), (0, one.guid));
    (one, other)
}

#[test]
fn players_connect_talk_and_part() {
    let (mut one, mut other) = connected();
    for (index, mode) in SendMode::ALL.iter().enumerate() {
        for size in [0, 1, 1000, 60_000] {
            let data: Vec<u8> = (0..size).map(|at| (at * 7 + index) as u8).collect();
            ok(one.send(other.guid, *mode, &data));
            let event = other.expect(EventType::Message);
            assert_eq!(
                (event.record.peer, event.record.channel, event.record.mode),
                (one.guid, 3, mode.number())
            );
            assert_eq!(event.data, data);
            assert!(event.record.time_us > 0);
        }
    }
    let large = vec![5; 1 << 20];
    ok(one.send(u64::MAX, SendMode::ReliableOrdered, &large));
    assert_eq!(other.expect(EventType::Message).data, large);
    assert_eq!(
        one.send(other.guid, SendMode::Unreliable, &large),
        Code::TooLarge.number()
    );
    assert_eq!(one.send(77, SendMode::Unreliable, b"x"), Code::NotConnected.number());

    let mut stats = PeerStatsRecord {
        struct_size: size_of::<PeerStatsRecord>() as u32,
        ..Default::default()
    };
    // Figures are renewed now and then.
    let deadline = Instant::now() + PATIENCE;
    while stats.messages_sent < 17 {
        assert!(Instant::now() < deadline, "{stats:?}");
        // SAFETY: valid for the calls.
        unsafe {
            lanline_wait(one.node, 20);
            ok(lanline_peer_stats_get(one.node, other.guid, &mut stats));
        }
        one.poll();
    }
    assert!(stats.rtt_us > 0 && stats.path > 0, "{stats:?}");

    let text = "good-bye";
    // SAFETY: valid for the call.
    ok(unsafe { lanline_peer_disconnect(one.node, other.guid, 42, text.as_ptr().cast(), text.len() as u32) });
    let event = other.expect(EventType::Disconnected);
    assert_eq!(
        (event.record.peer, event.record.code),
        (one.guid, Code::Closed.number())
    );
    assert_eq!((event.record.count, event.text.as_str()), (42, text));
    one.expect(EventType::Disconnected);
    assert_eq!(
        one.send(other.guid, SendMode::Reliable, b"x"),
        Code::NotConnected.number()
    );
    one.destroy();
    other.destroy();
}

#[test]
fn many_messages_arrive_in_order_although_the_game_is_slow() {
    let (mut one, mut other) = connected();
    const TOTAL: u32 = 50_000;
    let (mut sent, mut received) = (0u32, 0u32);
    let deadline = Instant::now() + PATIENCE;
    while received < TOTAL {
        assert!(Instant::now() < deadline, "{sent} sent, {received} received");
        while sent < TOTAL {
            match one.send(
                other.guid,
                SendMode::ReliableOrdered,
                &[&sent.to_le_bytes()[..], &[0; 96]].concat(),
            ) {
                0 => sent += 1,
                code => {
                    assert_eq!(code, Code::QueueFull.number(), "{}", last_error());
                    break;
                }
            }
        }
        one.poll();
        // SAFETY: no pointers.
        unsafe { lanline_wait(other.node, 10) };
        while other.poll() > 0 {}
        for seen in other.seen.drain(..) {
            assert_eq!(seen.data[..4], received.to_le_bytes());
            received += 1;
        }
    }
    one.destroy();
    // The one that is left hears of it.
    assert_eq!(other.expect(EventType::Disconnected).record.code, Code::Closed.number());
    other.destroy();
}

#[test]
fn a_request_to_nobody_can_be_cancelled_and_ends_once() {
    let mut one = Player::new();
    let nobody = AddressRecord::from("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
    let mut request = 0;
    // SAFETY: valid for the calls.
    unsafe {
        ok(lanline_peer_connect(one.node, 0, &nobody, &mut request));
        ok(lanline_cancel(one.node, request));
        let event = one.expect(EventType::ConnectionFailed);
        assert_eq!(
            (event.record.request, event.record.code),
            (request, Code::Cancelled.number())
        );
        assert_eq!(lanline_cancel(one.node, request), Code::NotFound.number());
        assert_eq!(lanline_cancel(one.node, 12345), Code::NotFound.number());
        let mut nat = 0;
        ok(lanline_open_nat(one.node, 4711, &mut nat));
        let event = one.expect(EventType::NatPunchthroughFailed);
        assert_eq!(
            (event.record.request, event.record.code),
            (nat, Code::ServerLost.number())
        );
        assert_eq!(lanline_open_nat(one.node, one.guid, &mut nat), Code::Self_.number());
    }
    one.destroy();
}

#[test]
fn what_a_node_sits_behind_is_asked_for_told_and_read() {
    let mut one = Player::new();
    let (mut detection, mut mapping, mut report) = (0, 0, 0);
    let mut facts = NatFactsRecord {
        struct_size: size_of::<NatFactsRecord>() as u32,
        known: 7,
        ..Default::default()
    };
    // SAFETY: valid for the calls.
    unsafe {
        ok(lanline_nat_facts_get(one.node, &mut facts));
        // Nothing is known of a node without a server, and nothing is guessed.
        assert_eq!((facts.known, facts.r#type, facts.certain), (0, 0, 0), "{facts:?}");
        assert_eq!(
            (facts.mapping_varies_by_port, facts.filters_by_address, facts.double_nat),
            (-1, -1, -1)
        );
        assert_eq!(
            (facts.public_v4.family, facts.mapped.family, facts.port_block_known),
            (0, 0, 0)
        );
        let mut words = [0u8; 64];
        assert_eq!(lanline_nat_text(one.node, 2, words.as_mut_ptr().cast(), 64), 7);
        assert_eq!(&words[..8], b"unknown\0");
        // Without a server each ends with its own event, and a reason where there is nothing to tell.
        ok(lanline_nat_detect(one.node, std::ptr::null(), &mut detection));
        let event = one.expect(EventType::NatType);
        assert_eq!((event.record.request, event.record.count), (detection, 0), "{event:?}");
        assert!(event.record.code < 0 && !event.text.is_empty(), "{event:?}");
        // Bound to loopback, it has nothing that a router could forward to, and none is asked.
        ok(lanline_port_map(one.node, 1, &mut mapping));
        let event = one.expect(EventType::PortMappingFailed);
        assert_eq!(event.record.request, mapping);
        assert!(event.record.code < 0 && !event.text.is_empty(), "{event:?}");
        ok(lanline_report(one.node, 0, std::ptr::null(), &mut report));
        let event = one.expect(EventType::Report);
        assert_eq!((event.record.request, event.record.code), (report, 0));
        let json: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
        assert_eq!(json["nat"]["type"], "UNKNOWN");
        assert!(event.text.contains("this computer"), "{}", event.text);
    }
    one.destroy();
}

/// Waits until the policies of session and node together are these.
#[track_caller]
fn policies_become(node: u32, expected: (u32, u32)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mut session, mut effective) = (9, 9);
        // SAFETY: valid for the calls.
        unsafe {
            ok(lanline_relay_policy_get(node, &mut session, &mut effective));
            if (session, effective) == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{session} {effective}, not {expected:?}");
            lanline_wait(node, 1);
        }
    }
}

const FALLBACK: u32 = 0;
const NEVER: u32 = 1;
const ONLY: u32 = 2;

#[test]
fn relays_that_are_not_there_end_each_wish_with_its_own_event() {
    let mut one = Player::new();
    let (mut route, mut proxy) = (0, 0);
    // SAFETY: valid for the calls.
    unsafe {
        ok(lanline_route(one.node, 4711, &mut route));
        let event = one.expect(EventType::RouterForwardingNoPath);
        assert_eq!((event.record.request, event.record.peer), (route, 4711));
        assert!(event.record.code < 0 && !event.text.is_empty(), "{event:?}");
        ok(lanline_proxy(one.node, 4711, 600_000, &mut proxy));
        let event = one.expect(EventType::ProxyNoServersOnline);
        assert_eq!((event.record.request, event.record.peer), (proxy, 4711));
        assert_eq!(event.record.code, Code::ServerLost.number(), "{event:?}");
        // The books know that both are over.
        for request in [route, proxy] {
            assert_eq!(lanline_cancel(one.node, request), Code::NotFound.number());
        }
        ok(lanline_set_relay_policy(one.node, NEVER));
        ok(lanline_proxy(one.node, 4711, 0, &mut proxy));
        let event = one.expect(EventType::ProxyNoServersOnline);
        assert_eq!(
            (event.record.request, event.record.code),
            (proxy, Code::Policy.number()),
            "{event:?}"
        );
        assert_eq!(lanline_route(one.node, one.guid, &mut route), Code::Self_.number());
        assert_eq!(lanline_proxy(one.node, one.guid, 0, &mut proxy), Code::Self_.number());
    }
    one.destroy();
}

#[test]
fn a_sessions_relay_policy_holds_beside_the_nodes_own() {
    let mut one = Player::new();
    let opposite = Code::WrongState.number();
    // SAFETY: no pointers.
    unsafe {
        policies_become(one.node, (FALLBACK, FALLBACK));
        ok(lanline_set_session_relay_policy(one.node, ONLY));
        policies_become(one.node, (ONLY, ONLY));
        assert_eq!(lanline_set_relay_policy(one.node, NEVER), opposite);
        assert!(last_error().contains("the session's \"only\""), "{}", last_error());
        ok(lanline_set_relay_policy(one.node, ONLY));
        ok(lanline_set_session_relay_policy(one.node, FALLBACK));
        policies_become(one.node, (FALLBACK, ONLY));
        assert_eq!(lanline_set_session_relay_policy(one.node, NEVER), opposite);
        assert!(last_error().contains("the node's own \"only\""), "{}", last_error());
        // Two calls of which the second cannot know yet what the first did: the first holds, and the game is told.
        ok(lanline_set_relay_policy(one.node, FALLBACK));
        policies_become(one.node, (FALLBACK, FALLBACK));
        lanline_set_session_relay_policy(one.node, ONLY);
        if lanline_set_relay_policy(one.node, NEVER) == 0 {
            let notice = one.expect(EventType::Notice);
            assert!(notice.text.contains("\"never\" was not taken"), "{}", notice.text);
        }
        policies_become(one.node, (ONLY, ONLY));
    }
    one.destroy();
}

#[test]
fn what_to_set_by_hand_names_port_and_address() {
    let one = Player::new();
    let mut port = ManualPortRecord {
        struct_size: size_of::<ManualPortRecord>() as u32,
        ..Default::default()
    };
    let mut words = [0u8; 512];
    // SAFETY: valid for the call.
    let needed = unsafe { lanline_port_manual(one.node, &mut port, words.as_mut_ptr().cast(), 512) };
    let text = std::str::from_utf8(&words[..usize::try_from(needed).unwrap()]).unwrap();
    let address = one.address();
    assert_eq!((port.port, port.protocol, port.lasting), (address.port, 17, 0));
    assert_eq!(port.internal, address);
    assert!(text.contains("no address that a router could forward"), "{text}");
    one.destroy();
}

#[test]
fn a_thousand_nodes_come_and_go_without_leaving_anything() {
    // Warm up what is made once: the background thread and its descriptors.
    Player::new().destroy();
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).map_or(0, |list| list.count());
    let threads = count("task");
    for _ in 0..1000 {
        let player = Player::new();
        let node = player.node;
        player.destroy();
        // SAFETY: no pointers.
        assert_eq!(unsafe { lanline_wait(node, 0) }, Code::InvalidNode.number());
    }
    // Other tests run at the same time, with some nodes of their own.
    assert!(count("fd") < 200, "{} descriptors", count("fd"));
    assert!(count("task") <= threads + 20, "{} threads", count("task"));
}

#[test]
fn destroy_in_the_middle_of_polls_sends_and_waits() {
    for round in 0..20 {
        let (one, other) = connected();
        let (node, peer) = (one.node, other.guid);
        let deadline = Instant::now() + PATIENCE;
        let calls = &std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for call in 0..3 {
                scope.spawn(move || {
                    let mut events = [EventRecord::default(); 4];
                    while Instant::now() < deadline {
                        // SAFETY: valid for the calls.
                        let code = unsafe {
                            match call {
                                0 => lanline_poll(node, events.as_mut_ptr(), 128, 4),
                                1 => lanline_send(node, peer, 0, 0, events.as_ptr().cast(), 100),
                                _ => lanline_wait(node, 10_000),
                            }
                        };
                        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if code == Code::InvalidNode.number() {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    panic!("call {call} was not told that the node is gone");
                });
            }
            // The moment of the destroy differs from round to round, by what the others have done meanwhile.
            while calls.load(std::sync::atomic::Ordering::Relaxed) < round % 5 * 500 {
                std::thread::yield_now();
            }
            one.destroy();
        });
        other.destroy();
    }
}

#[test]
fn an_identity_in_use_is_noticed() {
    let path = std::env::temp_dir().join(format!("lanline-abi-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let path = path.to_str().unwrap();
    let using = |options: &mut NodeOptionsRecord| {
        (options.identity_file, options.identity_file_len) = (path.as_ptr().cast(), path.len() as u32);
    };
    let first = Player::with(using);
    let mut second = Player::with(using);
    assert_ne!(first.guid, second.guid);
    assert!(second.expect(EventType::Notice).text.contains("in use"));
    let guid = first.guid;
    first.destroy();
    let third = Player::with(using);
    assert_eq!(third.guid, guid);
    third.destroy();
    second.destroy();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn no_poll_allocates_or_frees_and_no_small_send_does_once_the_lanes_have_grown() {
    let (mut one, mut other) = connected();
    let mut events = [EventRecord::default(); 64];
    for round in 0..20 {
        let mut sent = 0;
        let before = ALLOCATIONS.get();
        while sent < 2000 && one.send(other.guid, SendMode::ReliableOrdered, &[7; 100]) == 0 {
            sent += 1;
        }
        if round > 10 && sent == 2000 {
            // The lanes swap with the driver's: both have grown by now, or grow a last time.
            assert!(
                ALLOCATIONS.get() - before <= 4,
                "round {round}: {}",
                ALLOCATIONS.get() - before
            );
        }
        let deadline = Instant::now() + PATIENCE;
        let mut received = 0;
        while received < sent {
            assert!(Instant::now() < deadline);
            // SAFETY: valid for the calls.
            unsafe { lanline_wait(other.node, 10) };
            let before = ALLOCATIONS.get();
            // SAFETY: room for 64.
            let count = unsafe { lanline_poll(other.node, events.as_mut_ptr(), 128, 64) };
            assert_eq!(ALLOCATIONS.get(), before, "a poll that returned {count}");
            assert!(count >= 0);
            received += count;
        }
        one.poll();
        other.poll();
    }
    one.destroy();
    other.destroy();
}

#[test]
fn a_player_that_comes_and_goes_while_the_game_does_not_poll_is_told_of_once() {
    let mut one = Player::new();
    let mut idle = Player::new();
    let address = idle.address();
    let (mut let_in, mut full) = (0, 0);
    for _ in 0..10 {
        let mut request = 0;
        // SAFETY: valid for the call.
        ok(unsafe { lanline_peer_connect(one.node, idle.guid, &address, &mut request) });
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            assert!(Instant::now() < deadline);
            // SAFETY: no pointers.
            unsafe { lanline_wait(one.node, 100) };
            one.poll();
            let mut seen = one.seen.drain(..);
            if let Some(event) = seen.find(|event| event.record.request == request) {
                break event;
            }
        };
        if ended.kind == EventType::Connected {
            let_in += 1;
            // SAFETY: valid for the call.
            ok(unsafe { lanline_peer_disconnect(one.node, idle.guid, 0, std::ptr::null(), 0) });
            one.expect(EventType::Disconnected);
        } else {
            assert_eq!(ended.record.code, Code::Full.number(), "{ended:?}");
            full += 1;
        }
    }
    assert_eq!((let_in, full), (1, 9));
    let mut stats = NodeStatsRecord {
        struct_size: size_of::<NodeStatsRecord>() as u32,
        ..Default::default()
    };
    // SAFETY: valid for the call.
    ok(unsafe { lanline_node_stats_get(idle.node, &mut stats) });
    assert_eq!(stats.events_pending, 2);
    idle.expect(EventType::Connected);
    idle.expect(EventType::Disconnected);
    // It has heard: the next one may come.
    let mut request = 0;
    // SAFETY: valid for the call.
    ok(unsafe { lanline_peer_connect(one.node, idle.guid, &address, &mut request) });
    one.expect(EventType::Connected);
    idle.expect(EventType::Connected);
    one.destroy();
    idle.destroy();
}

#[test]
fn a_destroy_without_time_still_says_goodbye() {
    for timeout in [0, 1_000] {
        let (one, mut other) = connected();
        // Something is on its way and not acknowledged.
        ok(one.send(other.guid, SendMode::ReliableOrdered, &[1; 100]));
        // SAFETY: no pointers.
        ok(unsafe { lanline_node_destroy(one.node, timeout) });
        // A node that had only vanished would be LOST, ten seconds later.
        let gone = other.expect(EventType::Disconnected);
        assert_eq!((gone.record.peer, gone.record.code), (one.guid, Code::Closed.number()));
        other.destroy();
    }
}
