//! Players behind real kernel NATs: network namespaces with nftables routers, driven through the C harness.
//!
//! Needs root, `ip`, `nft`, and what `make build` leaves. Where one of these is missing the tests say so and do nothing; with
//! `CI=true` they fail instead.

#![cfg(target_os = "linux")]

mod conversation;
mod discovery;
mod doctor;
mod forwarding;
mod ipv6;
mod mapping;
mod names;
mod network;
mod players;
mod relay;
mod relay_losses;
mod relay_players;
mod relay_servers;
mod roaming;
mod routers;
mod symmetric;
mod tunnel;

use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};

use network::{Network, Router};
use players::{Player, Server, Transcript};

/// Tests at a time: each starts up to a dozen programs that mostly wait for each other; more would make all of them slow on a
/// machine with two processors.
const AT_A_TIME: u32 = 6;
static RUNNING: Mutex<u32> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run, given back when dropped.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// The right to run, or `None` after saying why not.
fn turn(test: &str, obstacle: Option<String>) -> Option<Turn> {
    if let Some(why) = obstacle {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run: {why}");
        // Not through println: the test runner would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
        return None;
    }
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = ENDED
        .wait_while(running, |running| *running >= AT_A_TIME)
        .unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    Some(Turn)
}

const NAT_OUTCOMES: [&str; 6] = [
    "NAT_PUNCHTHROUGH_SUCCEEDED",
    "NAT_PUNCHTHROUGH_FAILED",
    "NAT_TARGET_NOT_CONNECTED",
    "NAT_TARGET_UNRESPONSIVE",
    "NAT_CONNECTION_TO_TARGET_LOST",
    "NAT_ALREADY_IN_PROGRESS",
];

/// Opens a way from `a` to `b`, connects, talks both ways. Gives what was wrong, if anything.
fn meet(a: &mut Player, b: &mut Player, path: &str) -> Option<String> {
    a.command(&format!("open_nat peer={}", b.guid));
    finish_meeting(a, b, path)
}

/// The rest of it after `a` was told to open a way.
fn finish_meeting(a: &mut Player, b: &mut Player, path: &str) -> Option<String> {
    let (a_guid, b_guid) = (a.guid.clone(), b.guid.clone());
    let opened = a.any_event(&NAT_OUTCOMES, &b_guid);
    if opened["event"] != "NAT_PUNCHTHROUGH_SUCCEEDED" || opened["path"] != path || opened["sender"] != 1 {
        return Some(format!("{} open_nat {}: {opened}", a.name(), b.name()));
    }
    let heard = b.any_event(&NAT_OUTCOMES, &a_guid);
    if heard["event"] != "NAT_PUNCHTHROUGH_SUCCEEDED" || heard["sender"] != 0 {
        return Some(format!("{} hears of {}'s open_nat: {heard}", b.name(), a.name()));
    }
    a.command(&format!("connect_peer peer={b_guid}"));
    let connected = a.any_event(&["CONNECTED", "CONNECTION_FAILED"], &b_guid);
    if connected["event"] != "CONNECTED" || connected["path"] != path {
        return Some(format!("{} connect_peer {}: {connected}", a.name(), b.name()));
    }
    let passive = b.event("CONNECTED", Some(&a_guid));
    if passive["path"] != path || passive["request"] != 0 {
        return Some(format!("{} is connected by {}: {passive}", b.name(), a.name()));
    }
    a.command(&format!("send peer={b_guid} text=\"there\""));
    b.message(&a_guid, "there");
    b.command(&format!("send peer={a_guid} mode=reliable text=\"and back\""));
    a.message(&b_guid, "and back");
    None
}

#[test]
fn every_pair_of_routers_connects_directly() {
    let test = "every_pair_of_routers_connects_directly";
    let Some(_turn) = turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    // Two of each kind, so that a kind also meets its own; each behind a router of its own.
    let namespaces: Vec<(String, String)> = Router::ALL
        .into_iter()
        .flat_map(|kind| ["a", "b"].map(|side| (kind, side)))
        .map(|(kind, side)| {
            let label = format!("{kind:?}-{side}").to_lowercase();
            let host = network.hosts(&label, kind, 1).remove(0);
            (label, host)
        })
        .collect();
    let _server = Server::start(test, &transcript, &network);
    let mut players: Vec<Player> = namespaces
        .iter()
        .map(|(label, namespace)| Player::start(test, &transcript, &network, label, namespace))
        .collect();
    let mut wrong = Vec::new();
    for first in 0..Router::ALL.len() {
        for second in first..Router::ALL.len() {
            let (left, right) = players.split_at_mut(2 * second + 1);
            wrong.extend(meet(&mut left[2 * first], &mut right[0], "direct"));
        }
    }
    if !wrong.is_empty() {
        transcript.fail(test, &wrong.join("\n"));
    }
}

#[test]
fn two_hosts_behind_one_router_connect_by_lan() {
    let test = "two_hosts_behind_one_router_connect_by_lan";
    let Some(_turn) = turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let home = network.hosts("home", Router::PortRestricted, 2);
    let _server = Server::start(test, &transcript, &network);
    let mut a = Player::start(test, &transcript, &network, "home-a", &home[0]);
    let mut b = Player::start(test, &transcript, &network, "home-b", &home[1]);
    if let Some(wrong) = meet(&mut a, &mut b, "lan") {
        transcript.fail(test, &wrong);
    }
}

/// `joiner` (by its place) connects to the host, the first player, and joins those before it.
fn join(players: &mut [Player], joiner: usize) {
    let (host, guid) = (players[0].guid.clone(), players[joiner].guid.clone());
    players[joiner].command(&format!("connect_peer peer={host}"));
    players[joiner].event("CONNECTED", Some(&host));
    players[0].event("CONNECTED", Some(&guid));
    players[0].command(&format!("start_verified_join peer={guid} text=map"));
    players[joiner].event("VERIFIED_JOIN_START", Some(&host));
    players[0].event("VERIFIED_JOIN_CAPABLE", Some(&guid));
    players[0].command(&format!("respond_join peer={guid} accept=1 text=welcome"));
    players[joiner].event("VERIFIED_JOIN_ACCEPTED", Some(&host));
    players[joiner].event("NEW_HOST", Some(&host));
    for member in &mut players[..joiner] {
        member.event("MEMBER_JOINED", Some(&guid));
    }
}

/// Everybody says something that everybody else must hear.
fn chat(players: &mut [Player], words: &str) {
    for speaker in 0..players.len() {
        let (guid, text) = (players[speaker].guid.clone(), format!("{words} {speaker}"));
        players[speaker].command(&format!("send peer=all text=\"{text}\""));
        for (listener, player) in players.iter_mut().enumerate() {
            if listener != speaker {
                player.message(&guid, &text);
            }
        }
    }
}

#[test]
fn four_players_form_a_mesh_and_lose_their_host() {
    let test = "four_players_form_a_mesh_and_lose_their_host";
    let Some(_turn) = turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let kinds = [
        Router::PortRestricted,
        Router::FullCone,
        Router::AddressRestricted,
        Router::Carrier,
    ];
    let namespaces: Vec<String> = kinds
        .iter()
        .map(|kind| network.hosts(&format!("{kind:?}").to_lowercase(), *kind, 1).remove(0))
        .collect();
    let _server = Server::start(test, &transcript, &network);
    let mut players: Vec<Player> = kinds
        .iter()
        .zip(&namespaces)
        .map(|(kind, namespace)| Player::start(test, &transcript, &network, &format!("{kind:?}"), namespace))
        .collect();
    players[0].command("reset_host_calculation");
    for joiner in 1..players.len() {
        join(&mut players, joiner);
    }
    chat(&mut players, "hello from");

    let host = players.remove(0);
    let (old, next) = (host.guid.clone(), players[0].guid.clone());
    host.kill();
    for player in &mut players {
        let lost = player.event("DISCONNECTED", Some(&old));
        let news = player.event("NEW_HOST", Some(&next));
        if lost["name"] != "LOST" || news["old"] != *old {
            transcript.fail(
                test,
                &format!("{}: after the host was killed: {lost} {news}", player.name()),
            );
        }
    }
    for player in &mut players {
        let answer = player.command("host");
        if answer["host"] != *next || answer["order"].as_array().map(Vec::len) != Some(3) {
            transcript.fail(test, &format!("{}: host answers {answer}", player.name()));
        }
    }
    chat(&mut players, "still here");
}
