//! Connections between players, and what travels over them.

use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{DropReason, OwnedEvent, with_seeds};
use lanline::peer::api::Command;
use lanline::transport::SendError;

use super::{ms, pair};

/// Two players with public addresses, connected to the server and to each other.
fn connected_pair(seed: u64) -> Scenario {
    let mut scenario = pair(seed, RouterKind::Open, RouterKind::Open).build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario
}

#[test]
fn connected_comes_at_both_ends_without_a_second_request() {
    let mut scenario = pair(7, RouterKind::PortRestricted, RouterKind::AddressRestricted).build();
    scenario.connect_all();
    let peer = Some(scenario.guids[1]);
    let request = scenario.request(0, |request| Command::ConnectPeer {
        request,
        peer,
        address: None,
    });
    let asked = scenario.outcome(0, request);
    assert!(
        matches!(asked, OwnedEvent::Connected { peer, path: PathKind::Direct | PathKind::Proxied, .. } if peer == scenario.guids[1]),
        "{asked:?}"
    );
    let own = scenario.guids[0];
    let passive = scenario.expect(1, "CONNECTED", |event| matches!(event, OwnedEvent::Connected { .. }));
    assert!(
        matches!(passive.event, OwnedEvent::Connected { request: 0, peer, .. } if peer == own),
        "{passive:?}"
    );
    // To a peer already connected the same call answers at once.
    let again = scenario.request(0, |request| Command::ConnectPeer {
        request,
        peer,
        address: None,
    });
    let at_once = scenario.wait(0, Duration::ZERO, |event| event.ends_request() == Some(again));
    assert!(matches!(at_once.unwrap().event, OwnedEvent::Connected { .. }));
}

#[test]
fn messages_travel_in_every_mode_in_both_directions() {
    let mut scenario = connected_pair(8);
    let guids = scenario.guids.clone();
    let large = vec![7; 300_000];
    for (from, to) in [(0, 1), (1, 0)] {
        for (channel, mode) in (10..).zip(SendMode::ALL) {
            let sender = scenario.nodes[from];
            scenario.lab.send(sender, guids[to], channel, *mode, b"hello").unwrap();
            scenario.lab.run_for(ms(200));
            let messages = scenario.take_messages(to);
            let expected = OwnedEvent::Message {
                peer: guids[from],
                channel,
                mode: *mode,
                data: b"hello".to_vec(),
            };
            assert_eq!(messages, [expected], "{mode:?}");
        }
        let sender = scenario.nodes[from];
        scenario
            .lab
            .send(sender, guids[to], 0, SendMode::ReliableOrdered, &large)
            .unwrap();
        scenario.expect(
            to,
            "300 kB",
            |event| matches!(event, OwnedEvent::Message { data, .. } if *data == large),
        );
    }
}

#[test]
fn reliable_messages_survive_loss_and_keep_their_order() {
    with_seeds(0..5, |seed| {
        let mut scenario = pair(seed, RouterKind::FullCone, RouterKind::Open).loss(0.1).build();
        scenario.connect_all();
        scenario.connect_pair(0, 1);
        let (sender, peer) = (scenario.nodes[0], scenario.guids[1]);
        for number in 0..200_u32 {
            for mode in [
                SendMode::ReliableOrdered,
                SendMode::Reliable,
                SendMode::UnreliableSequenced,
            ] {
                let channel = mode.number();
                scenario
                    .lab
                    .send(sender, peer, channel, mode, &number.to_be_bytes())
                    .unwrap();
            }
            scenario.lab.run_for(ms(10));
        }
        scenario.lab.run_for(ms(5_000));
        let mut numbers = [const { Vec::new() }; 4];
        for message in scenario.take_messages(1) {
            let OwnedEvent::Message { mode, data, .. } = message else {
                unreachable!()
            };
            numbers[usize::from(mode.number())].push(u32::from_be_bytes(data.try_into().unwrap()));
        }
        let [_, sequenced, mut reliable, ordered] = numbers;
        assert_eq!(ordered, (0..200).collect::<Vec<_>>());
        reliable.sort_unstable();
        assert_eq!(reliable, ordered);
        assert!(sequenced.windows(2).all(|two| two[0] < two[1]), "{sequenced:?}");
        assert!((100..200).contains(&sequenced.len()), "{}", sequenced.len());
    });
}

#[test]
fn a_game_that_does_not_poll_holds_reliable_senders_back() {
    let mut scenario = connected_pair(9);
    let (sender, receiver, peer) = (scenario.nodes[0], scenario.nodes[1], scenario.guids[1]);
    scenario.lab.set_reliable_room(receiver, false);
    let message = vec![1; 100_000];
    let mut accepted = 0;
    // Far more than any queue should hold.
    const MOST: usize = 2_000;
    while accepted < MOST {
        match scenario.lab.send(sender, peer, 0, SendMode::ReliableOrdered, &message) {
            Ok(()) => accepted += 1,
            Err(SendError::Full) => break,
            Err(other) => panic!("{other:?}"),
        }
        scenario.lab.run_for(ms(20));
    }
    assert!(accepted < MOST, "nothing held the sender back");
    scenario.lab.run_for(ms(30_000));
    assert!(scenario.take_messages(1).is_empty());
    scenario.lab.set_reliable_room(receiver, true);
    scenario.lab.run_for(ms(30_000));
    assert_eq!(scenario.take_messages(1).len(), accepted);
}

#[test]
fn a_goodbye_is_heard_with_its_words() {
    let mut scenario = connected_pair(10);
    let (one, other) = (scenario.guids[0], scenario.guids[1]);
    let command = Command::Disconnect {
        peer: other,
        user_code: 77,
        text: "bedtime".to_owned(),
    };
    scenario.lab.command(scenario.nodes[0], command);
    let heard = scenario.expect(1, "DISCONNECTED", |event| {
        matches!(event, OwnedEvent::Disconnected { .. })
    });
    let OwnedEvent::Disconnected {
        peer,
        reason,
        user_code,
    } = heard.event
    else {
        unreachable!()
    };
    assert_eq!(
        (peer, reason.code, reason.text.as_str(), user_code),
        (one, Code::Closed, "bedtime", 77)
    );
    scenario.expect(
        0,
        "its own DISCONNECTED",
        |event| matches!(event, OwnedEvent::Disconnected { peer, .. } if *peer == other),
    );
    let sent = scenario.lab.send(scenario.nodes[0], other, 0, SendMode::Reliable, b"?");
    assert_eq!(sent, Err(SendError::NotConnected));
}

#[test]
fn a_silent_peer_is_lost_within_the_set_time() {
    let mut scenario = pair(11, RouterKind::Open, RouterKind::Open)
        .configure_nodes(|_, config| config.lost_peer_timeout = ms(3_000))
        .build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(ms(1_000));
    scenario.lab.crash(scenario.nodes[1]);
    let begin = scenario.lab.elapsed();
    let lost = scenario.expect(0, "DISCONNECTED", |event| {
        matches!(event, OwnedEvent::Disconnected { .. })
    });
    assert_eq!(lost.event.code(), Some(Code::Lost));
    // The last sign of life came up to a keep-alive before the crash, and its answer may have been under way.
    assert!(lost.time - begin <= ms(3_000) + ms(100), "{:?}", lost.time - begin);
}

#[test]
fn mappings_are_kept_alive_while_nobody_speaks() {
    let mut scenario = pair(12, RouterKind::PortRestricted, RouterKind::PortRestricted).build();
    scenario.connect_all();
    scenario.connect_pair(0, 1);
    scenario.lab.run_for(Duration::from_secs(300));
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, peer) = (scenario.nodes[from], scenario.guids[to]);
        scenario
            .lab
            .send(sender, peer, 0, SendMode::Unreliable, b"still there?")
            .unwrap();
        scenario.lab.run_for(ms(200));
        assert_eq!(scenario.take_messages(to).len(), 1);
    }
    assert_eq!(scenario.lab.dropped(DropReason::NoMapping), 0);
}
