//! As much of a TURN client (RFC 8656) as the benchmark needs: an allocation and a channel for each flow, without authentication.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::generator::Ends;

const COOKIE: u32 = 0x2112_a442;
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// What a success has in addition to its request's type.
const SUCCESS: u16 = 0x0100;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const UDP: u8 = 17;

fn message(kind: u16, number: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = kind.to_be_bytes().to_vec();
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(COOKIE.to_be_bytes());
    message.extend([0; 10]);
    message.extend(number.to_be_bytes());
    message.extend(body);
    message
}

fn xor_address(address: SocketAddrV4) -> Vec<u8> {
    let mut value = vec![0, 1];
    value.extend((address.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    value.extend((u32::from(*address.ip()) ^ COOKIE).to_be_bytes());
    value
}

fn read_xor_address(value: &[u8]) -> Option<SocketAddrV4> {
    let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]) ^ (COOKIE >> 16) as u16;
    let ip = u32::from_be_bytes(*value.get(4..8)?.first_chunk()?) ^ COOKIE;
    Some(SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(20..)?;
    loop {
        let kind = u16::from_be_bytes(*rest.first_chunk()?);
        let length = usize::from(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?));
        let value = rest.get(4..4 + length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get((4 + length).next_multiple_of(4)..)?;
    }
}

/// Asks from end 0, until it is answered or a second is over (three times).
fn ask(ends: &Ends, client: Ipv4Addr, server: SocketAddrV4, request: &[u8]) -> Result<Vec<u8>, String> {
    for _ in 0..3 {
        let sent = ends.send_from(0, client, server, request);
        sent.map_err(|error| format!("cannot send to coturn: {error}"))?;
        let Ok(answer) = ends.receive(0) else { continue };
        let kind = u16::from_be_bytes([request[0], request[1]]) | SUCCESS;
        if answer.len() < 20 || answer[8..20] != request[8..20] {
            continue;
        }
        if answer[..2] != kind.to_be_bytes() {
            return Err(format!("coturn refused: {:02x?}", &answer[..answer.len().min(64)]));
        }
        return Ok(answer);
    }
    Err("coturn does not answer".to_owned())
}

/// Allocates for a client at end 0, and binds a channel to a peer. Gives the relayed address.
pub fn allocate(
    ends: &Ends,
    number: u16,
    client: Ipv4Addr,
    server: SocketAddrV4,
    channel: u16,
    peer: SocketAddrV4,
) -> Result<SocketAddrV4, String> {
    let transport = (REQUESTED_TRANSPORT, vec![UDP, 0, 0, 0]);
    let answer = ask(ends, client, server, &message(ALLOCATE, number, &[transport]))?;
    let relayed = attribute(&answer, XOR_RELAYED_ADDRESS).and_then(read_xor_address);
    let relayed = relayed.ok_or("coturn named no relayed address")?;
    let mut value = channel.to_be_bytes().to_vec();
    value.extend([0, 0]);
    let attributes = [(CHANNEL_NUMBER, value), (XOR_PEER_ADDRESS, xor_address(peer))];
    let request = message(CHANNEL_BIND, 1_000 + number, &attributes);
    ask(ends, client, server, &request)?;
    Ok(relayed)
}
