//! Tests of further sockets, by themselves and in nodes. Where descriptors are counted or taken away, the test runs in a
//! process of its own.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use super::*;
use crate::engine::Transmit;
use crate::peer::api::SideEffectAnswer;
use crate::shell;
use crate::shell::node::Node;
use crate::shell::options::{self, NodeOptions};
use crate::shell::udp::SendOutcome;
use crate::wire::control::{Consent, RelayPolicy};

/// As many as birthday punching opens.
const MANY: u16 = 256;
/// The first number of most tests.
const FIRST: u16 = 1000;
/// Nothing here takes long; this ends a test that would never end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tests that open many sockets take turns: the usual limit of descriptors is too low for all of them at once.
fn my_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

fn loopback() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5)
}

fn pool() -> SocketPool {
    SocketPool::new(Arc::default())
}

fn transmit(number: u16, destination: SocketAddr, size: usize) -> Transmit {
    Transmit {
        socket: SocketName::Birthday(number),
        destination,
        ecn: None,
        size,
        segment_size: None,
        time_to_live: None,
    }
}

/// Fails the test if what it waits for does not come.
struct Patience(Instant);

impl Patience {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn wait(&self) {
        assert!(self.0.elapsed() < PATIENCE, "it never came");
        std::thread::yield_now();
    }
}

/// Receives until `count` datagrams are there; returns them by socket.
fn receive(pool: &mut SocketPool, count: usize) -> FxHashMap<SocketName, Vec<Vec<u8>>> {
    let (mut buffer, mut datagrams) = (ReceiveBuffer::new(), Vec::new());
    let (mut found, mut total) = (FxHashMap::<_, Vec<_>>::default(), 0);
    let patience = Patience::new();
    while total < count {
        pool.receive(&mut buffer, &mut datagrams, |datagram| {
            found
                .entry(datagram.socket)
                .or_default()
                .push(datagram.contents.to_vec());
            total += 1;
        });
        patience.wait();
    }
    found
}

#[test]
fn every_socket_has_its_own_port_and_only_what_was_sent_to_it() {
    let _turn = my_turn();
    let mut pool = pool();
    assert!(pool.is_empty());
    let opened = pool.open(FIRST, MANY, loopback());
    assert_eq!(opened.len(), usize::from(MANY));
    let outside = UdpSocket::bind(loopback_any()).unwrap();
    for (index, (name, address)) in opened.iter().enumerate() {
        assert_eq!(*name, SocketName::Birthday(FIRST + index as u16));
        assert_eq!(address.ip(), loopback().ip());
        assert_eq!(opened.iter().filter(|other| other.1 == *address).count(), 1);
        // Every third one gets something, twice.
        if index % 3 == 0 {
            for part in ["one", "two"] {
                outside.send_to(part.as_bytes(), address).unwrap();
            }
        }
    }
    let expected = usize::from(MANY).div_ceil(3);
    let found = receive(&mut pool, 2 * expected);
    assert_eq!(found.len(), expected);
    for (index, (name, _)) in opened.iter().enumerate() {
        let contents = found.get(name).map(|found| found.concat());
        assert_eq!(contents, (index % 3 == 0).then(|| b"onetwo".to_vec()));
    }
}

fn loopback_any() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// So that a flood on many sockets does not keep the engine from its other work, and none of them waits for ever.
#[cfg(target_os = "linux")]
#[test]
fn a_turn_reads_a_bounded_number_of_sockets_and_the_others_come_next() {
    let _turn = my_turn();
    let mut pool = pool();
    let opened = pool.open(FIRST, 3 * READ_IN_A_TURN as u16, loopback());
    let outside = UdpSocket::bind(loopback_any()).unwrap();
    // More than a turn reads from each.
    for _ in 0..2 * BATCH_SIZE {
        for (_, address) in &opened {
            outside.send_to(b"x", address).unwrap();
        }
    }
    let (mut buffer, mut datagrams) = (ReceiveBuffer::new(), Vec::new());
    let mut heard = FxHashMap::<_, usize>::default();
    for turn in 1..=3 {
        let more = pool.receive(&mut buffer, &mut datagrams, |datagram| {
            *heard.entry(datagram.socket).or_default() += 1;
        });
        assert!(more);
        assert_eq!(heard.len(), turn * READ_IN_A_TURN);
    }
    assert!(heard.values().all(|count| *count == BATCH_SIZE), "{heard:?}");
}

#[test]
fn what_waits_in_a_closed_socket_vanishes_and_the_others_go_on() {
    let mut pool = pool();
    let opened = pool.open(FIRST, 2, loopback());
    let outside = UdpSocket::bind(loopback_any()).unwrap();
    for (_, address) in &opened {
        outside.send_to(b"x", address).unwrap();
    }
    let gone = opened[0].0;
    // Twice, and one that never was.
    pool.close(&[gone, gone, SocketName::Birthday(7), SocketName::Udp4]);
    assert_eq!(receive(&mut pool, 1).into_keys().collect::<Vec<_>>(), [opened[1].0]);
    outside.send_to(b"late", opened[0].1).unwrap();
    outside.send_to(b"x", opened[1].1).unwrap();
    assert_eq!(receive(&mut pool, 1).into_keys().collect::<Vec<_>>(), [opened[1].0]);
    assert!(pool.socket(FIRST).is_none());
    assert!(!pool.is_empty());
    // The name is free again, the other one is not.
    assert_eq!(pool.open(FIRST, 1, loopback())[0].0, gone);
    assert!(pool.open(FIRST + 1, 1, loopback()).is_empty());
    // Names end at 65,535.
    assert_eq!(pool.open(u16::MAX, 5, loopback()).len(), 1);
    // An address that this machine does not have.
    assert!(pool.open(1, 5, "192.0.2.1:5".parse().unwrap()).is_empty());
}

/// A connected socket hears of closed ports on all systems.
#[test]
fn errors_of_the_network_are_counted_and_end_no_socket() {
    let mut pool = pool();
    let opened = pool.open(FIRST, 1, loopback());
    let there = UdpSocket::bind(loopback_any()).unwrap();
    let address = there.local_addr().unwrap();
    drop(there);
    let socket = pool.socket(FIRST).unwrap();
    crate::shell::udp::Io::socket(socket.io())
        .connect(&address.into())
        .unwrap();
    let (mut buffer, mut datagrams) = (ReceiveBuffer::new(), Vec::new());
    let patience = Patience::new();
    loop {
        let socket = pool.socket(FIRST).unwrap();
        assert_eq!(socket.send(&transmit(FIRST, address, 1), b"x", None), SendOutcome::Done);
        pool.receive(&mut buffer, &mut datagrams, |_| panic!("nobody answers"));
        let counters = pool.counters();
        // Whoever comes first hears of it: the next receive, or the next send.
        if counters.send_errors + counters.receive_errors > 2 {
            break;
        }
        patience.wait();
    }
    let there = UdpSocket::bind(address).unwrap();
    there.send_to(b"back again", opened[0].1).unwrap();
    assert_eq!(receive(&mut pool, 1)[&opened[0].0], [b"back again"]);
    let before = pool.counters();
    pool.close(&[opened[0].0]);
    assert_eq!(pool.counters(), before);
}

fn node_options() -> NodeOptions {
    NodeOptions {
        app: "pool".into(),
        bind: "127.0.0.1:0".into(),
        identity_file: String::new(),
        access_key: String::new(),
        public_address: None,
        max_peers: options::DEFAULT_MAX_PEERS,
        lost_peer_timeout_ms: options::DEFAULT_LOST_PEER_TIMEOUT_MS,
        join_timeout_ms: options::DEFAULT_JOIN_TIMEOUT_MS,
        router_max: 0,
        relay_policy: RelayPolicy::default(),
        accept_from: Consent::default(),
        join_manual: false,
        partial_mesh: false,
    }
}

/// A node that the background task drives.
fn in_background() -> Arc<Node> {
    let node = Node::create(node_options()).unwrap();
    runtime::run(node.clone()).unwrap();
    node
}

/// Opens further sockets as the engine's order does.
fn open(node: &Node, count: u16) -> Vec<SocketAddr> {
    let opened = node.with_driver(|driver| driver.open_sockets(node, FIRST, count, false));
    opened.unwrap().into_iter().map(|(_, address)| address).collect()
}

/// Datagrams that the engine got from further sockets.
fn delivered(node: &Node) -> u64 {
    node.with_driver(|driver| driver.pool().counters().received).unwrap()
}

fn send_to_all(addresses: &[SocketAddr]) {
    send_from(&UdpSocket::bind(loopback_any()).unwrap(), addresses);
}

fn send_from(outside: &UdpSocket, addresses: &[SocketAddr]) {
    for address in addresses {
        outside.send_to(b"no packet of anybody", address).unwrap();
    }
}

#[test]
fn the_background_task_reads_hundreds_of_sockets() {
    let _turn = my_turn();
    let node = &in_background();
    let addresses = open(node, MANY);
    assert_eq!(addresses.len(), usize::from(MANY));
    // It sleeps between the rounds, and is woken by each.
    for round in 1..=5 {
        send_to_all(&addresses);
        let patience = Patience::new();
        while delivered(node) < round * u64::from(MANY) {
            patience.wait();
        }
    }
    node.close(Instant::now());
}

/// No background task runs here.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_waits_reads_hundreds_of_sockets() {
    let _turn = my_turn();
    let node = Node::create(node_options()).unwrap();
    let addresses = open(&node, MANY);
    assert_eq!(addresses.len(), usize::from(MANY));
    for round in 1..=5 {
        std::thread::scope(|scope| {
            // While it sleeps, or before.
            scope.spawn(|| send_to_all(&addresses));
            let patience = Patience::new();
            while delivered(&node) < round * u64::from(MANY) {
                assert_eq!(node.wait(Duration::from_millis(20)), Ok(false));
                patience.wait();
            }
        });
    }
    node.close(Instant::now());
    assert!(node.with_driver(|_| ()).is_none());
}

/// The background task stands back for the thread that waits, and takes over again: sockets that were opened meanwhile too.
#[test]
fn waiting_threads_and_the_background_task_take_turns_at_further_sockets() {
    let _turn = my_turn();
    let node = &in_background();
    let mut expected = 0;
    for round in 0..10u16 {
        assert_eq!(node.wait(Duration::from_millis(1)), Ok(false));
        let first = FIRST + 10 * round;
        let opened = node.with_driver(|driver| driver.open_sockets(node, first, 10, false));
        let opened: Vec<_> = opened.unwrap().into_iter().map(|(_, address)| address).collect();
        send_to_all(&opened);
        expected += 10;
        let patience = Patience::new();
        while delivered(node) < expected {
            if round % 2 == 0 {
                assert_eq!(node.wait(Duration::from_millis(1)), Ok(false));
            }
            patience.wait();
        }
    }
    node.close(Instant::now());
}

#[test]
fn what_the_engine_orders_is_opened_and_closed() {
    let _turn = my_turn();
    let node = in_background();
    let lease = node.with_driver(|driver| driver.engine().pool().lease(MANY, false));
    let lease = lease.flatten().unwrap();
    // Somebody has to take notice.
    node.answer(SideEffectAnswer::LocalAddresses(vec![loopback().ip()]));
    let patience = Patience::new();
    let opened = loop {
        let opened = node.with_driver(|driver| driver.engine().pool().opened(lease).map(<[_]>::to_vec));
        if let Some(opened) = opened.unwrap() {
            break opened;
        }
        patience.wait();
    };
    assert_eq!(opened.len(), usize::from(MANY));
    let addresses: Vec<_> = opened.iter().map(|(_, address)| *address).collect();
    send_to_all(&addresses);
    while delivered(&node) < u64::from(MANY) {
        patience.wait();
    }
    // One became a path and stays.
    let (kept, address) = opened[7];
    node.with_driver(|driver| {
        assert!(driver.engine().pool().adopt(kept));
        driver.engine().pool().release(lease);
    });
    node.answer(SideEffectAnswer::LocalAddresses(Vec::new()));
    while node.with_driver(|driver| driver.pool().sockets.len()).unwrap() > 1 {
        patience.wait();
    }
    // The others are closed: what is sent there goes nowhere.
    send_to_all(&addresses);
    while delivered(&node) < u64::from(MANY) + 1 {
        patience.wait();
    }
    let mut names = node.with_driver(|driver| driver.pool().sockets.keys().copied().collect::<Vec<_>>());
    assert_eq!(names.take(), Some(vec![number_of(kept)]));
    assert_eq!(address.ip(), loopback().ip());
    node.close(Instant::now());
}

fn number_of(name: SocketName) -> u16 {
    match name {
        SocketName::Birthday(number) => number,
        _ => panic!("{name:?}"),
    }
}

#[test]
fn a_node_has_further_sockets_only_of_its_own_family() {
    let node = Node::create(node_options()).unwrap();
    let opened = node.with_driver(|driver| {
        assert!(driver.open_sockets(&node, FIRST, 3, true).is_empty());
        driver.open_sockets(&node, FIRST, 3, false)
    });
    assert!(
        opened
            .unwrap()
            .iter()
            .all(|(_, address)| address.ip() == loopback().ip())
    );
    node.close(Instant::now());
}

// ---- in a process of their own ----

#[cfg(target_os = "linux")]
mod alone {
    use std::process::Command;

    use super::*;

    const ALONE: &str = "LANLINE_TEST_ALONE";

    /// Runs this test alone in a child process. True in the child.
    fn alone(name: &str) -> bool {
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let name = format!("shell::pool::tests::alone::{name}");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        let complained = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}\n{complained}");
        assert!(said.contains("1 passed"), "{said}");
        print!("{said}");
        false
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
    }

    fn allow_descriptors(count: usize) {
        let limit = libc::rlimit {
            rlim_cur: count as _,
            rlim_max: count as _,
        };
        // SAFETY: the limit is valid for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    }

    fn ip(arguments: &str) -> bool {
        let done = Command::new("ip").args(arguments.split(' ')).output();
        done.is_ok_and(|done| done.status.success())
    }

    /// In a network namespace of its own. The background thread is started in it.
    #[test]
    fn the_engine_hears_of_addresses_that_come_and_go() {
        if !alone("the_engine_hears_of_addresses_that_come_and_go") {
            return;
        }
        // SAFETY: no pointers are involved; it concerns this thread, and those that it starts.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 || !ip("link set lo up") {
            println!("skipped: network namespaces need root and `ip`");
            return;
        }
        let id = shell::create(NodeOptions {
            bind: "0.0.0.0:0".into(),
            ..node_options()
        });
        shell::with_node(id.unwrap(), |node| {
            let known = || node.with_driver(|driver| driver.engine().local_addresses().to_vec());
            assert!(known().unwrap().is_empty());
            let moves = [
                ("add 192.0.2.1/32", &["192.0.2.1"][..]),
                ("add 192.0.2.2/32", &["192.0.2.1", "192.0.2.2"]),
                ("del 192.0.2.1/32", &["192.0.2.2"]),
                ("del 192.0.2.2/32", &[]),
            ];
            for (change, expected) in moves {
                let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
                let began = Instant::now();
                assert!(ip(&format!("addr {change} dev lo")));
                let patience = Patience::new();
                while known().unwrap() != expected {
                    patience.wait();
                }
                println!("{change}: known after {:?}", began.elapsed());
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn thousands_of_sockets_in_a_row_leave_no_descriptor_behind() {
        if !alone("thousands_of_sockets_in_a_row_leave_no_descriptor_behind") {
            return;
        }
        // What stays for the life of the process: the background thread's.
        in_background().close(Instant::now());
        let before = descriptors();
        let node = Node::create(node_options()).unwrap();
        let with_node = descriptors();
        for round in 0..20 {
            let addresses = open(&node, MANY);
            assert_eq!(addresses.len(), usize::from(MANY), "round {round}");
            // One more, which tells whether any is readable.
            assert_eq!(descriptors(), with_node + usize::from(MANY) + 1);
            send_to_all(&addresses);
            let names: Vec<_> = (FIRST..FIRST + MANY).map(SocketName::Birthday).collect();
            node.with_driver(|driver| driver.pool().close(&names));
            assert_eq!(descriptors(), with_node + 1);
        }
        open(&node, MANY);
        node.close(Instant::now());
        drop(node);
        assert_eq!(descriptors(), before);
        // Neither does the budget shrink.
        assert_eq!(pool().open_within(1, FIRST, 5, loopback()).len(), 1);
    }

    #[test]
    fn a_process_without_descriptors_gets_fewer_sockets_and_lives() {
        if !alone("a_process_without_descriptors_gets_fewer_sockets_and_lives") {
            return;
        }
        let node = Node::create(node_options()).unwrap();
        let outside = UdpSocket::bind(loopback_any()).unwrap();
        let allowed = descriptors() + 40;
        allow_descriptors(allowed);
        assert_eq!(limit_of_node(), 20);
        let addresses = open(&node, MANY);
        assert_eq!(addresses.len(), 20);
        // The limit counts what other nodes have taken.
        let mut other = pool();
        assert!(other.open(FIRST, MANY, loopback()).is_empty());
        // Past the budget it is the system that refuses.
        let rest = other.open_within(usize::MAX, FIRST, MANY, loopback());
        assert!((15..20).contains(&rest.len()), "{}", rest.len());
        // Nothing can even be looked up now, and nothing more is opened, but what is there works.
        let full: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        assert!(other.open(0, 1, loopback()).is_empty());
        send_from(&outside, &addresses);
        let patience = Patience::new();
        while delivered(&node) < 20 {
            assert_eq!(node.wait(Duration::from_millis(1)), Ok(false));
            patience.wait();
        }
        drop((other, full));
        let more = node.with_driver(|driver| driver.open_sockets(&node, 0, MANY, false));
        assert_eq!(more.unwrap().len(), 0);
        node.close(Instant::now());
    }
}
