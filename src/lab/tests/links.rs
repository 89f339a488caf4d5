//! Links: delay, loss, order, duplication, rate.

use super::super::{DropReason, Lab, Link, LinkDirection, half_loss, with_seeds};
use super::*;

/// Two hosts whose links are perfect but for the first one's way up.
fn pair(seed: u64, up: LinkDirection) -> (Lab, HostId, HostId) {
    let mut lab = Lab::new(seed);
    let internet = lab.internet();
    let link = Link { up, ..Link::default() };
    let sender = raw_by(&mut lab, "sender", internet, 1, link);
    let receiver = raw_by(&mut lab, "receiver", internet, 1, Link::default());
    (lab, sender, receiver)
}

/// Sends numbered datagrams of that size, one each interval; returns arrival time and number of each that arrives.
fn stream(
    (lab, sender, receiver): &mut (Lab, HostId, HostId),
    count: u32,
    size: usize,
    interval: Duration,
) -> Vec<(Duration, u32)> {
    let to = lab.socket_address(*receiver, UDP);
    for number in 0..count {
        let mut contents = vec![0; size];
        contents[..4].copy_from_slice(&number.to_be_bytes());
        lab.send_raw(*sender, UDP, to, &contents);
        lab.run_for(interval);
    }
    lab.run_for(ms(60_000));
    let received = lab.take_received(*receiver);
    let number = |contents: &[u8]| u32::from_be_bytes(contents[..4].try_into().unwrap());
    received
        .iter()
        .map(|received| (received.time, number(&received.contents)))
        .collect()
}

#[test]
fn latency_is_exact_and_adds_up_along_the_way() {
    let mut lab = Lab::new(1);
    let one = observer(&mut lab, "one");
    let (_, lan) = router(&mut lab, RouterConfig::full_cone());
    let inside = raw_by(&mut lab, "inside", lan, 5000, Link::lan(ms(3)));
    let to = lab.socket_address(one, UDP);
    lab.run_for(ms(17));
    lab.send_raw(inside, UDP, to, b"?");
    let took = lab.run_until(A_WHILE, |lab| !lab.received(one).is_empty());
    assert_eq!(took, Some(ms(3) + LATENCY + LATENCY));
    assert_eq!(lab.received(one)[0].time, ms(17 + 23));
    assert_eq!(lab.elapsed(), ms(17 + 23));
}

#[test]
fn directions_differ() {
    let mut lab = Lab::new(2);
    let internet = lab.internet();
    let mut link = Link::lan(ms(5));
    link.down.latency = ms(50);
    let left = raw_by(&mut lab, "left", internet, 1, link);
    let right = lab.add_host("right", internet, Link::default());
    lab.open_socket(right, UDP, "0.0.0.0:1".parse().unwrap());
    lab.start_echo(right);
    let to = lab.socket_address(right, UDP);
    lab.send_raw(left, UDP, to, b"ping");
    assert_eq!(
        lab.run_until(A_WHILE, |lab| !lab.received(left).is_empty()),
        Some(ms(55))
    );
}

#[test]
fn loss_is_about_what_it_is_set_to() {
    with_seeds(0..5, |seed| {
        let direction = LinkDirection {
            loss: 0.1,
            ..LinkDirection::default()
        };
        let mut pair = pair(seed, direction);
        let arrived = stream(&mut pair, 5_000, 20, ms(1)).len();
        // The standard deviation is 21; five of them.
        assert!((4_390..4_610).contains(&arrived), "{arrived} of 5000");
        assert_eq!(pair.0.dropped(DropReason::Lost), 5_000 - arrived as u64);
    });
}

#[test]
fn half_loss_twice_is_the_whole() {
    let passed = 1.0 - half_loss(0.1);
    assert!((passed * passed - 0.9).abs() < 1e-12);
}

#[test]
fn jitter_keeps_the_order_unless_told_otherwise() {
    for keeps_order in [true, false] {
        let direction = LinkDirection {
            latency: ms(20),
            jitter: ms(10),
            keeps_order,
            ..LinkDirection::default()
        };
        let sent = stream(&mut pair(3, direction), 500, 20, ms(1));
        let in_order = sent.windows(2).all(|two| two[0].1 < two[1].1);
        assert_eq!(in_order, keeps_order);
        let delays: Vec<Duration> = sent
            .iter()
            .map(|(time, number)| *time - ms(u64::from(*number)))
            .collect();
        assert!(delays.iter().all(|delay| (ms(20)..=ms(30)).contains(delay)));
        assert!(delays.iter().any(|delay| *delay > ms(28)) && delays.iter().any(|delay| *delay < ms(22)));
    }
}

#[test]
fn held_back_datagrams_are_overtaken() {
    let direction = LinkDirection {
        reordering: 0.05,
        reordering_delay: ms(10),
        ..LinkDirection::default()
    };
    let sent = stream(&mut pair(4, direction), 1_000, 20, ms(1));
    assert_eq!(sent.len(), 1_000);
    let late = sent
        .iter()
        .filter(|(time, number)| *time == ms(u64::from(*number) + 10))
        .count();
    let in_time = sent
        .iter()
        .filter(|(time, number)| *time == ms(u64::from(*number)))
        .count();
    assert_eq!(late + in_time, 1_000);
    assert!((20..90).contains(&late), "{late}");
}

#[test]
fn duplicates_arrive_twice() {
    let direction = LinkDirection {
        duplication: 0.2,
        ..LinkDirection::default()
    };
    let sent = stream(&mut pair(5, direction), 1_000, 20, ms(1));
    let doubled = sent.windows(2).filter(|two| two[0].1 == two[1].1).count();
    assert_eq!(sent.len(), 1_000 + doubled);
    assert!((130..270).contains(&doubled), "{doubled}");
}

#[test]
fn a_queue_delays_what_it_holds_and_drops_what_it_cannot() {
    // 1000 bytes with their headers of 28; at 8.224 Mbit/s each takes one millisecond.
    let direction = LinkDirection {
        rate: Some(1_028 * 8 * 1_000),
        queue: 10 * 1_028,
        ..LinkDirection::default()
    };
    let mut pair = pair(6, direction);
    let sent = stream(&mut pair, 25, 1_000, Duration::ZERO);
    let expected: Vec<(Duration, u32)> = (0..10).map(|number| (ms(u64::from(number) + 1), number)).collect();
    assert_eq!(sent, expected);
    assert_eq!(pair.0.dropped(DropReason::QueueFull), 15);
    // Empty again, and slower than the rate: no queue, only the transmission.
    let begin = pair.0.elapsed();
    let sent = stream(&mut pair, 5, 1_000, ms(2));
    for (time, number) in sent {
        assert_eq!(time - begin, ms(2 * u64::from(number) + 1));
    }
}

#[test]
fn too_large_packets_disappear() {
    let direction = LinkDirection {
        mtu: 1_000,
        ..LinkDirection::default()
    };
    let mut pair = pair(7, direction);
    assert_eq!(stream(&mut pair, 1, 972, ms(1)).len(), 1);
    assert_eq!(stream(&mut pair, 1, 973, ms(1)).len(), 0);
    assert_eq!(pair.0.dropped(DropReason::TooLarge), 1);
}

#[test]
fn links_change_and_break_at_run_time() {
    let mut pair = pair(8, LinkDirection::default());
    let attachment = pair.0.attachment(pair.1, 0);
    pair.0.change_link(attachment, |link| link.up.latency = ms(40));
    assert_eq!(stream(&mut pair, 1, 20, ms(0)), [(ms(40), 0)]);
    pair.0.set_connected(attachment, false);
    assert!(stream(&mut pair, 1, 20, ms(0)).is_empty());
    assert_eq!(pair.0.dropped(DropReason::LinkDown), 1);
    pair.0.set_connected(attachment, true);
    assert_eq!(stream(&mut pair, 1, 20, ms(0)).len(), 1);
}
