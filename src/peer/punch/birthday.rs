//! Birthday punching, by the server's permit: one side opens many mappings towards the other's one address, the other side searches them.
//!
//! The *opener*'s router gives random ports. Each of its sockets sends to the prober; each packet makes a mapping that lets the prober in.
//! The first packets have a low time to live, so that they open the own router and never reach the other one: some of those remember
//! whoever knocked, and then give the prober's packets to it another port. The later ones go all the way: where the prober has knocked
//! already and its packet, or the answer, was lost, they get through.
//!
//! The *prober* sends one small packet to each of many ports, in random order: those of the opener's block if one is known, extended by what
//! so few samples may have missed, else any. It begins when the openers can be there.
//!
//! Both are bounded by [`super::budget`]. With k mappings among S ports, N probes miss with probability (1 - k/S)^N.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::budget::{BIRTHDAY_INTERVAL, OPENER_PACKETS, ProbeCounters, SecondWindow};
use crate::engine::SocketName;
use crate::wire::introduction::{BIRTHDAY_PORTS, BIRTHDAY_SOCKETS, birthday_sockets};

/// Time between packets of openers: 256 of them take half a second, and home routers see no flood.
const OPENER_INTERVAL: Duration = Duration::from_millis(2);
/// Time between the packets of one socket: three of them keep its mapping alive for the whole attempt even where it is forgotten soon.
const OPENER_AGAIN: Duration = Duration::from_millis(3_000);
/// Passes the home's routers (two of them in a row are common) and dies in the provider's network.
pub const LOW_TIME_TO_LIVE: u8 = 3;
/// Ports that are given to mappings: not the well-known ones.
const PORTS: (u16, u16) = (1_024, u16::MAX);
/// Share of a block's width by which it is extended on both sides: n samples of a block miss, on average, its n-th part at each end; the
/// blocks are made of eight samples and more.
const GAP: u32 = 8;

/// The side that opens.
#[derive(Debug)]
pub struct Opener {
    sockets: Vec<SocketName>,
    towards: SocketAddr,
    low_first: bool,
    began: Instant,
    /// Socket and packet that come next.
    next: (usize, u8),
    next_at: Option<Instant>,
}

impl Opener {
    /// One whose sockets are open. `low_first`: the first packets are not to reach the other side.
    pub fn new(now: Instant, mut sockets: Vec<SocketName>, towards: SocketAddr, low_first: bool) -> Self {
        sockets.truncate(usize::from(BIRTHDAY_SOCKETS));
        Self {
            next_at: (!sockets.is_empty()).then_some(now),
            sockets,
            towards,
            low_first,
            began: now,
            next: (0, 0),
        }
    }

    /// The next packet: from where, where to, and its time to live.
    pub fn next_packet(
        &mut self,
        now: Instant,
        counters: &mut ProbeCounters,
    ) -> Option<(SocketName, SocketAddr, Option<u8>)> {
        self.next_at.filter(|at| *at <= now)?;
        let (index, packet) = self.next;
        let socket = *self.sockets.get(index)?;
        counters.opener_sockets = counters.opener_sockets.max(index as u32 + 1);
        counters.opener_packets = counters.opener_packets.max(u32::from(packet) + 1);
        if index + 1 < self.sockets.len() {
            self.next = (index + 1, packet);
            self.next_at = Some(now + OPENER_INTERVAL);
        } else {
            self.next = (0, packet + 1);
            let again = self.began + OPENER_AGAIN * u32::from(packet + 1);
            self.next_at = (packet + 1 < OPENER_PACKETS).then_some(again.max(now + OPENER_INTERVAL));
        }
        let time_to_live = (self.low_first && packet == 0).then_some(LOW_TIME_TO_LIVE);
        Some((socket, self.towards, time_to_live))
    }

    /// When the next packet is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }
}

/// The side that searches.
#[derive(Debug)]
pub struct Prober {
    ip: IpAddr,
    /// Ports that are still to be probed, the next one last; drawn when the first is due.
    ports: Vec<u16>,
    drawn: bool,
    count: u16,
    block: Option<(u16, u16)>,
    next_at: Option<Instant>,
    window: SecondWindow,
    sent: u32,
}

impl Prober {
    /// One that begins when the other side's openers can be there.
    pub fn new(now: Instant, ip: IpAddr, count: u16, block: Option<(u16, u16)>) -> Self {
        let openers = birthday_sockets(block);
        Self {
            ip,
            ports: Vec::new(),
            drawn: false,
            count: count.min(BIRTHDAY_PORTS),
            block,
            next_at: Some(now + OPENER_INTERVAL * u32::from(openers)),
            window: SecondWindow::default(),
            sent: 0,
        }
    }

    /// The next address. `probed`: ports that have probes of other kinds already, and need none of these.
    pub fn next_address<Probed: Iterator<Item = u16>>(
        &mut self,
        now: Instant,
        probed: impl FnOnce(IpAddr) -> Probed,
        random: impl FnMut() -> u64,
        counters: &mut ProbeCounters,
    ) -> Option<SocketAddr> {
        self.next_at.filter(|at| *at <= now)?;
        if !self.drawn {
            self.drawn = true;
            self.ports = draw(self.count, self.block, probed(self.ip).collect(), random);
        }
        let port = self.ports.pop();
        self.next_at = (!self.ports.is_empty()).then_some(now + BIRTHDAY_INTERVAL);
        let port = port?;
        self.sent += 1;
        counters.birthday_ports = counters.birthday_ports.max(self.sent);
        counters.birthday_in_a_second = counters.birthday_in_a_second.max(self.window.count(now));
        Some(SocketAddr::new(self.ip, port))
    }

    /// When the next probe is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }
}

/// Distinct ports in random order, to be taken from the end: those of the (extended) block first, and none of those that are known.
fn draw(count: u16, block: Option<(u16, u16)>, mut known: BTreeSet<u16>, mut random: impl FnMut() -> u64) -> Vec<u16> {
    let count = usize::from(count);
    let (first, last) = block.map_or(PORTS, extended);
    let mut inside: Vec<u16> = (first..=last).filter(|port| !known.contains(port)).collect();
    let taken = count.min(inside.len());
    // The first steps of a Fisher-Yates shuffle.
    for index in 0..taken {
        let other = index + (random() % (inside.len() - index) as u64) as usize;
        inside.swap(index, other);
    }
    inside.truncate(taken);
    known.extend(&inside);
    let range = u64::from(PORTS.1 - PORTS.0) + 1;
    while inside.len() < count {
        let port = PORTS.0 + (random() % range) as u16;
        if known.insert(port) {
            inside.push(port);
        }
    }
    inside.reverse();
    inside
}

fn extended((first, last): (u16, u16)) -> (u16, u16) {
    let gap = ((u32::from(last) - u32::from(first.min(last))) / GAP + 1) as u16;
    let first = first.saturating_sub(gap).max(PORTS.0);
    (first, last.saturating_add(gap).max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> impl FnMut() -> u64 {
        let mut state = 1u64;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 16
        }
    }

    #[test]
    fn an_opener_sends_three_packets_from_each_socket_and_only_the_first_falls_short() {
        let start = Instant::now();
        let sockets: Vec<_> = (0..300).map(SocketName::Birthday).collect();
        let towards = "198.51.100.7:4000".parse().unwrap();
        for low_first in [true, false] {
            let mut opener = Opener::new(start, sockets.clone(), towards, low_first);
            let mut counters = ProbeCounters::default();
            let mut sent = Vec::new();
            while let Some(now) = opener.poll_timeout() {
                sent.extend(
                    opener
                        .next_packet(now, &mut counters)
                        .map(|packet| (now - start, packet)),
                );
            }
            assert_eq!((counters.opener_sockets, counters.opener_packets), (256, 3));
            assert_eq!(sent.len(), 256 * 3);
            assert!(sent[255].0 < Duration::from_millis(520), "{:?}", sent[255].0);
            let low = sent.iter().filter(|(_, packet)| packet.2.is_some()).count();
            assert_eq!(low, if low_first { 256 } else { 0 });
            assert!(sent[256..].iter().all(|(_, packet)| packet.2.is_none()));
        }
    }

    #[test]
    fn a_prober_probes_distinct_ports_at_its_rate_those_of_the_block_first() {
        let start = Instant::now();
        let ip = "198.51.100.7".parse().unwrap();
        let named = [4_100, 65_100];
        for (block, inside) in [
            (None, 2_048),
            (Some((4_096, 4_595)), 500 + 2 * 63 - 1),
            (Some((65_000, 65_535)), 600),
        ] {
            let mut prober = Prober::new(start, ip, 5_000, block);
            let (mut counters, mut random) = (ProbeCounters::default(), counter());
            let mut ports = Vec::new();
            while let Some(now) = prober.poll_timeout() {
                ports.extend(
                    prober
                        .next_address(now, |_| named.iter().copied(), &mut random, &mut counters)
                        .map(|address| address.port()),
                );
            }
            assert_eq!((counters.birthday_ports, counters.birthday_in_a_second), (2_048, 250));
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 2_048);
            let (first, last) = block.map_or(PORTS, extended);
            assert!(ports.iter().all(|port| !named.contains(port)), "{block:?}");
            let expected = inside.min(usize::from(last - first));
            assert!(
                ports[..expected].iter().all(|port| (first..=last).contains(port)),
                "{block:?}"
            );
        }
    }

    #[test]
    fn a_prober_begins_when_as_many_sockets_can_have_sent_as_the_server_lets_the_other_side_open() {
        let start = Instant::now();
        let waits = |block| Prober::new(start, "198.51.100.7".parse().unwrap(), 9, block).poll_timeout();
        assert_eq!(waits(None), Some(start + Duration::from_millis(512)));
        assert_eq!(waits(Some((49_152, 65_535))), Some(start + Duration::from_millis(512)));
        assert_eq!(waits(Some((49_153, 65_535))), Some(start + Duration::from_millis(128)));
    }

    #[test]
    fn hostile_blocks_are_harmless() {
        for block in [(0, 0), (9, 3), (0, u16::MAX), (u16::MAX, u16::MAX)] {
            let ports = draw(2_048, Some(block), BTreeSet::new(), counter());
            assert_eq!(ports.len(), 2_048);
            assert!(ports.iter().all(|port| *port >= PORTS.0));
        }
    }
}
