//! The same seed gives the same trace.

use super::super::{Allocation, Fate, Lab, Link, RouterConfig, TraceEntry, first_difference, with_seeds};
use super::*;

/// Two talkative hosts behind unlucky links and a random router, and an echo.
fn traffic(seed: u64) -> Vec<TraceEntry> {
    let mut lab = Lab::new(seed);
    lab.record_trace();
    let internet = lab.internet();
    let unlucky = Link::internet(LATENCY).with(|direction| {
        direction.loss = 0.1;
        direction.jitter = ms(5);
        direction.reordering = 0.1;
        direction.reordering_delay = ms(7);
        direction.duplication = 0.1;
    });
    let echo = lab.add_host("echo", internet, unlucky);
    lab.open_socket(echo, UDP, "0.0.0.0:7".parse().unwrap());
    lab.start_echo(echo);
    let to = lab.socket_address(echo, UDP);
    let (_, lan) = router(&mut lab, RouterConfig::symmetric(Allocation::Random));
    let hosts = [5000, 6000].map(|port| raw_by(&mut lab, "inside", lan, port, unlucky));
    for number in 0..50_u8 {
        for host in hosts {
            lab.send_raw(host, UDP, to, &vec![number; usize::from(number)]);
        }
        lab.run_for(ms(3));
    }
    lab.run_for(A_WHILE);
    lab.trace().to_vec()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    with_seeds(0..5, |seed| {
        let trace = traffic(seed);
        assert_eq!(first_difference(&trace, &traffic(seed)), None);
        assert!(trace.iter().any(|entry| entry.fate == Fate::Delivered));
        assert!(trace.iter().any(|entry| matches!(entry.fate, Fate::Dropped(_))));
    });
}

#[test]
fn another_seed_gives_another_trace() {
    assert!(first_difference(&traffic(1), &traffic(2)).is_some());
}

#[test]
fn one_differing_byte_is_found() {
    let trace = traffic(3);
    let mut other = trace.clone();
    let last = other.len() - 1;
    other[last].hash ^= 1;
    assert!(
        first_difference(&trace, &other)
            .unwrap()
            .starts_with(&format!("entry {last}:"))
    );
    other.pop();
    assert!(first_difference(&trace, &other).unwrap().contains("(end)"));
}

#[test]
fn labs_side_by_side_do_not_disturb_each_other() {
    let alone = traffic(4);
    let threads: Vec<_> = (4..7).map(|seed| std::thread::spawn(move || traffic(seed))).collect();
    let traces: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(first_difference(&alone, &traces[0]), None);
    assert!(first_difference(&alone, &traces[1]).is_some());
}
