//! Messages from those who have no right to send them: dropped, counted, without effect on the others.

use std::time::Duration;

use bytes::Bytes;

use super::settle;
use super::simulator::Simulator;
use crate::codes::Code;
use crate::transport::identity::PublicKey;
use crate::wire::control::RelayPolicy;
use crate::wire::mesh::{ChangeKind, Member, MemberState, MeshMessage};

/// Player `from` says this to player `to`; asserts that it was dropped and the session is as before.
fn is_dropped(simulator: &mut Simulator, from: usize, to: usize, message: MeshMessage) {
    let order = simulator.order(to);
    let (dropped, events) = (simulator.players[to].mesh.dropped(), simulator.players[to].events.len());
    let (guid, now) = (simulator.guid(from), simulator.now);
    simulator.players[to].mesh.message(now, guid, message.clone());
    assert_eq!(simulator.players[to].mesh.dropped(), dropped + 1, "{message:?}");
    assert_eq!(simulator.players[to].events.len(), events, "{message:?}");
    assert_eq!(simulator.order(to), order, "{message:?}");
    assert!(simulator.players[to].mesh.dialing.is_empty(), "{message:?}");
}

fn member(index: usize, place: u64) -> Member {
    Member {
        key: PublicKey([index as u8 + 1; 32]),
        place,
        age_ms: 0,
    }
}

fn membership(simulator: &Simulator, of: usize, epoch: u64, members: Vec<Member>) -> MeshMessage {
    let (session, subject) = (simulator.players[of].mesh.session.id, simulator.guid(1));
    MeshMessage::Membership {
        session,
        epoch,
        change: ChangeKind::Host,
        subject,
        text: String::new(),
        members,
    }
}

fn start(simulator: &Simulator, members: usize, joining: usize) -> MeshMessage {
    MeshMessage::JoinStart {
        session: simulator.players[0].mesh.session.id,
        join: 5,
        epoch: 1,
        flags: 0,
        time_limit_ms: 1000,
        members: (0..members).map(|index| member(100 + index, index as u64)).collect(),
        joining: (0..joining).map(|index| member(180 + index, 0).key).collect(),
        data: Bytes::new(),
        relay_policy: RelayPolicy::Fallback,
    }
}

#[test]
fn start_counts_only_from_a_peer_that_was_wished_for_and_names_at_most_64() {
    let mut simulator = Simulator::new(2, 1, 20);
    simulator.connect(1, 0);
    simulator.run(Duration::from_secs(1));
    let message = start(&simulator, 1, 0);
    is_dropped(&mut simulator, 1, 0, message);
    let message = start(&simulator, 40, 25);
    is_dropped(&mut simulator, 0, 1, message);
}

#[test]
fn strangers_change_nothing() {
    let mut simulator = Simulator::new(3, 2, 20);
    simulator.gather(2);
    simulator.connect(2, 0);
    simulator.run(Duration::from_secs(1));
    let mesh = &simulator.players[0].mesh;
    let (session, epoch, own) = (mesh.session.id, mesh.session.epoch, simulator.guid(0));
    let victim = simulator.guid(1);
    let (data, results) = (Bytes::new(), vec![(victim, MemberState::Connected)]);
    for message in [
        membership(&simulator, 0, 99, vec![member(2, 0), member(1, 1)]),
        MeshMessage::Leave { session },
        MeshMessage::Unreachable {
            session,
            epoch,
            members: vec![victim],
        },
        MeshMessage::HostLost {
            session,
            epoch,
            host: own,
            lost: true,
        },
        MeshMessage::Links {
            session,
            links: Vec::new(),
        },
        MeshMessage::ResetPlace { session },
        MeshMessage::JoinCapable {
            join: 1,
            epoch,
            results,
            data: data.clone(),
        },
        MeshMessage::JoinAccepted {
            session,
            join: 1,
            epoch,
            members: vec![member(2, 0), member(0, 1)],
            data: data.clone(),
        },
        MeshMessage::JoinRejected { join: 1, data },
        MeshMessage::JoinFailed {
            join: 1,
            code: Code::Lost.number(),
            member: victim,
            text: String::new(),
        },
    ] {
        is_dropped(&mut simulator, 2, 0, message);
    }
    settle(&mut simulator);
    assert_eq!(simulator.order(1), [0, 1]);
}

#[test]
fn a_member_that_claims_to_host_is_not_believed_while_the_host_lives() {
    let mut simulator = Simulator::new(4, 3, 20);
    simulator.gather(4);
    simulator.clear_events();
    // 1 tells 2 that it hosts, without 0.
    let (guid, now) = (simulator.guid(1), simulator.now);
    let claim = membership(&simulator, 2, 1 << 40, vec![member(1, 1), member(2, 2), member(3, 3)]);
    simulator.players[2].mesh.message(now, guid, claim);
    simulator.run(Duration::from_secs(30));
    assert_eq!(simulator.order(2), [0, 1, 2, 3]);
    assert!(simulator.story(2).is_empty());
    // Nor with a lower place, an old epoch, an epoch beyond the limit, or a list that is none.
    for message in [
        membership(&simulator, 2, 0, vec![member(1, 0), member(2, 2)]),
        membership(&simulator, 2, u64::MAX, vec![member(1, 0), member(2, 2)]),
        membership(&simulator, 2, 1 << 40, vec![member(1, 5), member(2, 2)]),
        membership(&simulator, 2, 1 << 40, vec![member(1, 1), member(1, 2)]),
        membership(&simulator, 2, 1 << 40, Vec::new()),
        membership(&simulator, 2, 1 << 40, vec![member(0, 0), member(1, 2)]),
    ] {
        is_dropped(&mut simulator, 1, 2, message);
    }
}

#[test]
fn a_member_that_reports_everybody_is_the_one_who_goes() {
    let mut simulator = Simulator::new(4, 4, 20);
    simulator.gather(4);
    simulator.clear_events();
    let (session, epoch) = (
        simulator.players[0].mesh.session.id,
        simulator.players[0].mesh.session.epoch,
    );
    let members = vec![simulator.guid(2), simulator.guid(3)];
    let (guid, now) = (simulator.guid(1), simulator.now);
    simulator.players[0].mesh.message(
        now,
        guid,
        MeshMessage::Unreachable {
            session,
            epoch,
            members,
        },
    );
    settle(&mut simulator);
    assert_eq!(simulator.story(0), ["-1 LOST"]);
    assert_eq!(simulator.order(3), [0, 2, 3]);
}

#[test]
fn what_one_peer_can_make_a_node_keep_is_bounded() {
    let mut simulator = Simulator::new(2, 5, 20);
    simulator.connect(1, 0);
    simulator.run(Duration::from_secs(1));
    let (guid, now) = (simulator.guid(0), simulator.now);
    for epoch in 0..1000 {
        let MeshMessage::JoinStart {
            session,
            join,
            members,
            joining,
            data,
            ..
        } = start(&simulator, 60, 0)
        else {
            panic!()
        };
        let mut members = members;
        for (index, member) in members.iter_mut().enumerate() {
            member.key.0[..8].copy_from_slice(&(epoch * 64 + index as u64).to_be_bytes());
        }
        let time_limit_ms = u32::MAX;
        let start = MeshMessage::JoinStart {
            session,
            join,
            epoch,
            flags: 0,
            time_limit_ms,
            members,
            joining,
            data,
            relay_policy: RelayPolicy::Fallback,
        };
        simulator.players[1].mesh.message(now, guid, start);
    }
    let mesh = &simulator.players[1].mesh;
    assert!(mesh.joins.len() == 1 && mesh.view().joins[0].members.len() <= 3 * 64);
    assert!(mesh.dialing.len() <= 3 * 64);
    assert!(mesh.dropped() > 900);
}
