//! Tests of the lab itself, from outside: raw hosts observe routers and links.

mod drive;
mod forwarding;
mod grid;
mod links;
mod moves;
mod probes;
mod routers;
mod scenarios;
mod traces;

use std::net::SocketAddr;
use std::time::Duration;

use super::{HostId, Lab, Link, NetworkId, RouterConfig, RouterId};
use crate::engine::SocketName;

const UDP: SocketName = SocketName::Udp4;
/// A second socket of a host.
const SECOND: SocketName = SocketName::Listen(1);
/// The latency of every link here, one way.
const LATENCY: Duration = Duration::from_millis(10);
/// Longer than any way here.
const A_WHILE: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A running raw host with a socket on that port.
fn raw(lab: &mut Lab, name: &str, network: NetworkId, port: u16) -> HostId {
    raw_by(lab, name, network, port, Link::internet(LATENCY))
}

fn raw_by(lab: &mut Lab, name: &str, network: NetworkId, port: u16, link: Link) -> HostId {
    let host = lab.add_host(name, network, link);
    lab.open_socket(host, UDP, SocketAddr::from(([0, 0, 0, 0], port)));
    lab.start_raw(host);
    host
}

/// A raw host in the internet with two sockets.
fn observer(lab: &mut Lab, name: &str) -> HostId {
    let internet = lab.internet();
    let host = raw(lab, name, internet, 3478);
    lab.open_socket(host, SECOND, SocketAddr::from(([0, 0, 0, 0], 3479)));
    host
}

/// A router in the internet.
fn router(lab: &mut Lab, config: RouterConfig) -> (RouterId, NetworkId) {
    let router = lab.add_router(lab.internet(), config, Link::internet(LATENCY));
    (router, lab.lan(router))
}

/// Sends a datagram and waits.
fn send(lab: &mut Lab, from: HostId, to: SocketAddr) {
    lab.send_raw(from, UDP, to, b"?");
    lab.run_for(A_WHILE);
}

/// Sends a datagram to one of another host's sockets; returns the source address that is seen there, if it arrives.
fn seen(lab: &mut Lab, from: HostId, to: HostId, socket: SocketName) -> Option<SocketAddr> {
    let destination = lab.socket_address(to, socket);
    lab.take_received(to);
    send(lab, from, destination);
    lab.take_received(to).pop().map(|received| received.source)
}

/// Whether a datagram from one of a host's sockets to an address reaches that other host.
fn reaches(lab: &mut Lab, from: HostId, socket: SocketName, address: SocketAddr, to: HostId) -> bool {
    lab.take_received(to);
    lab.send_raw(from, socket, address, b"!");
    lab.run_for(A_WHILE);
    !lab.take_received(to).is_empty()
}
