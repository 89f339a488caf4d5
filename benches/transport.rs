//! Messages a second through two transports in memory: packing, QUIC and encryption on both sides, no sockets.
//!
//! `cargo bench --bench transport` prints delivered messages a second and the CPU time a million messages cost on either side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lanline::codes::SendMode;
use lanline::transport::identity::Identity;
use lanline::transport::{LinkEvent, LinkId, LinkKind, SyntheticAddress, Transport, TransportConfig};

const RUN: Duration = Duration::from_secs(2);

/// Time that this thread had on a processor, where the system tells (Linux).
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

struct Side {
    transport: Transport,
    address: SyntheticAddress,
    busy: Duration,
}

fn side(seed: u8) -> Side {
    let mut transport = Transport::new(TransportConfig {
        identity: Arc::new(Identity::from_seed([seed; 32])),
        seed: [seed; 32],
        crypto: Arc::new(rustls::crypto::ring::default_provider()),
        accepts: Some(LinkKind::Peer),
        lost_peer_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(3),
        max_links: 10,
    });
    let address = transport.new_address();
    Side {
        transport,
        address,
        busy: Duration::ZERO,
    }
}

/// Moves what one side has to send to the other. The receiver gets copies, as from a socket.
fn carry(from: &mut Side, to: &mut Side, buffer: &mut Vec<u8>) -> bool {
    let mut any = false;
    loop {
        let begin = Instant::now();
        buffer.clear();
        let transmit = from.transport.poll_transmit(begin, buffer);
        let middle = Instant::now();
        from.busy += middle - begin;
        let Some((_, ecn, segment)) = transmit else { return any };
        any = true;
        let mut batch = BytesMut::from(&buffer[..]);
        let segment = segment.unwrap_or(batch.len());
        let begin = Instant::now();
        while !batch.is_empty() {
            let packet = batch.split_to(segment.min(batch.len()));
            to.transport.handle_datagram(begin, to.address, ecn, packet);
        }
        to.busy += begin.elapsed();
    }
}

fn timers(side: &mut Side) {
    let now = Instant::now();
    if side.transport.poll_timeout().is_some_and(|time| time <= now) {
        side.transport.handle_timeout(now);
    }
}

fn connect(a: &mut Side, b: &mut Side, buffer: &mut Vec<u8>) -> (LinkId, LinkId) {
    let link = a
        .transport
        .connect(Instant::now(), a.address, LinkKind::Peer, None, None);
    loop {
        carry(a, b, buffer);
        carry(b, a, buffer);
        timers(a);
        timers(b);
        while a.transport.poll_event().is_some() {}
        while let Some(event) = b.transport.poll_event() {
            if let LinkEvent::Connected { link: other, .. } = event {
                return (link, other);
            }
        }
    }
}

fn measure(name: &str, mode: SendMode, size: usize, shared: bool) {
    let (mut a, mut b, mut buffer) = (side(1), side(2), Vec::new());
    let (link, other) = connect(&mut a, &mut b, &mut buffer);
    let data = vec![7; size];
    let bytes = Bytes::from(data.clone());
    (a.busy, b.busy) = (Duration::ZERO, Duration::ZERO);
    let (mut sent, mut received) = (0u64, 0u64);
    let cpu_start = cpu_time();
    let start = Instant::now();
    while start.elapsed() < RUN {
        let begin = Instant::now();
        for _ in 0..2000 {
            let result = if shared {
                a.transport.send_shared(link, 0, mode, bytes.clone())
            } else {
                a.transport.send(link, 0, mode, &data)
            };
            if result.is_err() {
                break;
            }
            sent += 1;
        }
        a.busy += begin.elapsed();
        carry(&mut a, &mut b, &mut buffer);
        let begin = Instant::now();
        while let Some(message) = b.transport.next_message(other, true) {
            received += u64::from(message.data.len() == size);
        }
        while b.transport.poll_event().is_some() {}
        b.busy += begin.elapsed();
        carry(&mut b, &mut a, &mut buffer);
        while a.transport.poll_event().is_some() {}
        timers(&mut a);
        timers(&mut b);
    }
    // On a busy machine wall time includes waiting for the processor: the share that this thread had of it is taken out.
    let share = (cpu_time() - cpu_start).as_secs_f64() / start.elapsed().as_secs_f64();
    let share = if share > 0.0 { share.min(1.0) } else { 1.0 };
    let seconds = start.elapsed().as_secs_f64() * share;
    let millions = received as f64 / 1e6 / share;
    println!(
        "{name:32} {:8.2} M/s {:8.0} MB/s   sender {:.3} receiver {:.3} s per million, {:.2} % lost, {:?}",
        received as f64 / 1e6 / seconds,
        received as f64 * size as f64 / 1e6 / seconds,
        a.busy.as_secs_f64() / millions,
        b.busy.as_secs_f64() / millions,
        (1.0 - received as f64 / sent as f64) * 100.0,
        a.transport
            .stats(link)
            .map(|stats| (stats.packets_lost, stats.congestion_window, stats.mtu)),
    );
}

fn main() {
    measure("unreliable 100 B", SendMode::Unreliable, 100, false);
    measure("sequenced 100 B", SendMode::UnreliableSequenced, 100, false);
    measure("reliable 100 B", SendMode::Reliable, 100, false);
    measure("ordered 100 B", SendMode::ReliableOrdered, 100, false);
    measure("reliable 64 KiB", SendMode::Reliable, 65536, false);
    measure("reliable 64 KiB, shared", SendMode::Reliable, 65536, true);
    measure("ordered 64 KiB, shared", SendMode::ReliableOrdered, 65536, true);
    measure("unreliable 64 KiB", SendMode::Unreliable, 65536, false);
}
