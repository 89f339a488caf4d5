//! Counting probes from outside, and keeping what is sent.

use super::super::Lab;
use super::*;
use crate::wire::probe::{PADDED_PROBE, PLAIN_PROBE, Probe, ProbeKey, ProbeKind};

fn probe(introduction: u64, kind: ProbeKind) -> Vec<u8> {
    sized_probe(introduction, kind, PADDED_PROBE)
}

fn sized_probe(introduction: u64, kind: ProbeKind, size: usize) -> Vec<u8> {
    let probe = Probe {
        introduction,
        from_asker: true,
        transaction: 1,
        kind,
    };
    let mut out = Vec::new();
    probe.encode(&ProbeKey::new(&[7; 32]), size, &mut out);
    out
}

#[test]
fn unanswered_requests_are_counted_by_attempt_and_address() {
    let mut lab = Lab::new(1);
    lab.count_probes();
    lab.capture_sent();
    let one = observer(&mut lab, "one");
    let internet = lab.internet();
    let prober = raw(&mut lab, "prober", internet, 5000);
    let (known, to) = (lab.socket_address(prober, UDP), lab.socket_address(one, UDP));
    let nobody: SocketAddr = "20.99.99.99:1".parse().unwrap();
    let request = |introduction| probe(introduction, ProbeKind::Request);
    for address in [to, to, nobody] {
        lab.send_raw(prober, UDP, address, &request(1));
    }
    lab.send_raw(prober, UDP, nobody, &request(2));
    lab.send_raw(prober, UDP, nobody, b"no probe");
    let opener = SocketName::Birthday(3);
    for _ in 0..2 {
        lab.send_raw_with(prober, opener, nobody, &request(1), Some(4));
    }
    lab.run_for(ms(100));
    // Whoever answered is no stranger any more; answers are not counted.
    lab.send_raw(one, UDP, known, &probe(1, ProbeKind::Response { observed: known }));
    lab.run_for(ms(100));
    lab.send_raw(prober, UDP, to, &request(1));
    lab.run_for(ms(1_000));
    lab.send_raw(prober, UDP, nobody, &request(2));
    lab.run_for(ms(100));

    let probes = lab.probes(prober).unwrap();
    let attempts: Vec<_> = probes.attempts().collect();
    assert_eq!(attempts.len(), 2);
    assert_eq!((attempts[0].packets(), attempts[0].addresses(false)), (5, 2));
    assert_eq!(attempts[0].most_to_an_address(false), 2);
    assert_eq!(attempts[0].most_to_an_address(true), 3);
    assert_eq!(
        (attempts[0].pool_sockets(), attempts[0].most_from_a_pool_socket()),
        (1, 2)
    );
    assert_eq!((attempts[1].packets(), attempts[1].took()), (2, ms(1_200)));
    assert_eq!(probes.busiest_second(), 6);

    let sent = lab.take_sent();
    let from_pool: Vec<_> = sent.iter().filter(|sent| sent.socket == opener).collect();
    assert_eq!(from_pool.len(), 2);
    assert!(
        from_pool
            .iter()
            .all(|sent| sent.time_to_live == Some(4) && sent.host == prober)
    );
    assert_eq!(sent.iter().filter(|sent| sent.host == one).count(), 1);
}

/// Whatever an engine says of itself: an address that is begun with a small request is one of many.
#[test]
fn a_search_is_told_from_named_addresses_by_what_comes_first() {
    let mut lab = Lab::new(2);
    lab.count_probes();
    let internet = lab.internet();
    let prober = raw(&mut lab, "prober", internet, 5000);
    let address = |port: u16| SocketAddr::from(([20, 99, 99, 99], port));
    let [small, large] = [PLAIN_PROBE, PADDED_PROBE].map(|size| sized_probe(1, ProbeKind::Request, size));
    for contents in [&large, &small] {
        lab.send_raw(prober, UDP, address(1), contents);
    }
    for port in 2..=6 {
        lab.send_raw(prober, UDP, address(port), &small);
        lab.run_for(ms(300));
    }
    // Found, and followed by a full-size one.
    lab.send_raw(prober, UDP, address(6), &large);
    lab.send_raw_with(prober, SocketName::Birthday(1), address(7), &small, None);
    lab.run_for(ms(1));

    let probes = lab.probes(prober).unwrap();
    let attempt = probes.attempts().next().unwrap();
    assert_eq!(attempt.plain_addresses(), 2);
    assert_eq!(
        (attempt.searched_addresses(false), attempt.searched_addresses(true)),
        (5, 6)
    );
    assert_eq!(attempt.busiest_second_of_search(false), 4);
}
