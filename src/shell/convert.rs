//! Events of the engine as records of the C ABI.

use std::net::SocketAddr;

use super::record::EventRecord;
use crate::codes::{Code, EventType, NatType, PathKind};
use crate::peer::api::relay::{ProxyOutcome, RelayEvent, RouterOutcome};
use crate::peer::api::{Event, MeshEvent, NatOutcome, Reason};
use crate::peer::nat;
use crate::peer::report::words;
use crate::transport::Message;
use crate::transport::identity::Guid;

/// `flags` of NAT events: this node asked.
pub const FLAG_REQUESTED: u32 = 1;
/// `flags` of NAT_TYPE: the facts leave no other name.
pub const FLAG_CERTAIN: u32 = 1;
/// `flags` of NAT_TYPE: players behind most routers reach this node.
pub const FLAG_FRIENDLY: u32 = 2;
/// `flags` of PORT_MAPPED: another router stands before that one.
pub const FLAG_DOUBLE_NAT: u32 = 1;
/// `flags` of SERVER_CONNECTED: the key was verified.
pub const FLAG_VERIFIED: u32 = 1;

/// The record of a message of that player.
#[inline]
pub fn message_record(peer: Guid, message: &Message<'_>, time_us: u64) -> EventRecord {
    EventRecord {
        r#type: EventType::Message.number(),
        time_us,
        peer: peer.0,
        channel: message.channel,
        mode: message.mode.number(),
        ..EventRecord::default()
    }
}

/// Calls `put` with the record, data and text of `event`. Allocates nothing for messages.
pub fn convert(event: &Event<'_>, time_us: u64, put: impl FnOnce(EventRecord, &[u8], &str)) {
    let record = |kind: EventType| EventRecord {
        r#type: kind.number(),
        time_us,
        ..EventRecord::default()
    };
    match event {
        Event::Message {
            peer,
            channel,
            mode,
            data,
        } => {
            let message = Message {
                channel: *channel,
                mode: *mode,
                data,
            };
            put(message_record(*peer, &message, time_us), data, "");
        }
        Event::ServerConnected {
            request,
            key,
            verified,
            observed,
        } => {
            let record = EventRecord {
                request: *request,
                flags: if *verified { FLAG_VERIFIED } else { 0 },
                address: (*observed).into(),
                ..record(EventType::ServerConnected)
            };
            put(record, &key.0, "");
        }
        Event::ServerFailed { request, reason } => {
            put(
                EventRecord {
                    request: *request,
                    code: number(reason),
                    ..record(EventType::ServerFailed)
                },
                &[],
                &reason.text,
            );
        }
        Event::ServerLost { reason } => {
            put(
                EventRecord {
                    code: number(reason),
                    ..record(EventType::ServerLost)
                },
                &[],
                &reason.text,
            );
        }
        Event::ServerReconnected { key, observed } => {
            put(
                EventRecord {
                    address: (*observed).into(),
                    ..record(EventType::ServerReconnected)
                },
                &key.0,
                "",
            );
        }
        Event::ServerDisconnected { request } => {
            put(
                EventRecord {
                    request: *request,
                    ..record(EventType::ServerDisconnected)
                },
                &[],
                "",
            );
        }
        Event::NatSucceeded {
            request,
            peer,
            path,
            address,
            sender,
        } => {
            let record = EventRecord {
                request: *request,
                peer: peer.0,
                path: path.number(),
                address: (*address).into(),
                flags: requested(*sender),
                ..record(EventType::NatPunchthroughSucceeded)
            };
            put(record, &[], "");
        }
        Event::NatFailed {
            request,
            peer,
            outcome,
            reason,
            sender,
        } => {
            let record = EventRecord {
                request: *request,
                peer: peer.0,
                code: number(reason),
                flags: requested(*sender),
                ..record(nat_failure(*outcome))
            };
            put(record, &[], &reason.text);
        }
        Event::Connected {
            request,
            peer,
            path,
            address,
        } => {
            let record = EventRecord {
                request: *request,
                peer: peer.0,
                path: path.number(),
                address: (*address).into(),
                ..record(EventType::Connected)
            };
            put(record, &[], "");
        }
        Event::ConnectionFailed {
            request,
            peer,
            address,
            reason,
        } => {
            let record = EventRecord {
                request: *request,
                peer: guid(*peer),
                address: address.map(SocketAddr::into).unwrap_or_default(),
                code: number(reason),
                ..record(EventType::ConnectionFailed)
            };
            put(record, &[], &reason.text);
        }
        Event::Disconnected {
            peer,
            reason,
            user_code,
        } => {
            let record = EventRecord {
                peer: peer.0,
                code: number(reason),
                count: *user_code,
                ..record(EventType::Disconnected)
            };
            put(record, &[], &reason.text);
        }
        Event::Dropped { peer, count } => {
            let record = EventRecord {
                peer: peer.0,
                count: u32::try_from(*count).unwrap_or(u32::MAX),
                ..record(EventType::Dropped)
            };
            put(record, &[], "");
        }
        Event::PathChanged {
            peer,
            from,
            to,
            address,
        } => {
            let record = EventRecord {
                peer: peer.0,
                path: to.number(),
                path_from: from.number(),
                address: (*address).into(),
                ..record(EventType::PathChanged)
            };
            put(record, &[], "");
        }
        Event::NatDetected {
            request,
            report,
            reason,
        } => {
            let name = report.name.unwrap_or(NatType::Unknown);
            let certain = if report.certain { FLAG_CERTAIN } else { 0 };
            let friendly = if nat::is_friendly(report) { FLAG_FRIENDLY } else { 0 };
            let record = EventRecord {
                request: *request,
                count: name.number().into(),
                flags: certain | friendly,
                code: reason.as_ref().map_or(0, number),
                address: report
                    .public_v4
                    .or(report.public_v6)
                    .map(Into::into)
                    .unwrap_or_default(),
                ..record(EventType::NatType)
            };
            let facts = words::summary(report);
            let text = match reason {
                Some(reason) => format!("{}. {facts}", reason.text.trim_end_matches('.')),
                None => facts,
            };
            put(record, &[], &text);
        }
        Event::PortMapped {
            request,
            external,
            protocol,
            double_nat,
            text,
        } => {
            let record = EventRecord {
                request: *request,
                address: (*external).into(),
                count: protocol.number().into(),
                flags: if *double_nat { FLAG_DOUBLE_NAT } else { 0 },
                ..record(EventType::PortMapped)
            };
            put(record, &[], text);
        }
        Event::PortMappingFailed { request, reason } => {
            let record = EventRecord {
                request: *request,
                code: number(reason),
                ..record(EventType::PortMappingFailed)
            };
            put(record, &[], &reason.text);
        }
        Event::PortMappingProgress { request, text } => {
            let record = EventRecord {
                request: *request,
                ..record(EventType::PortMappingProgress)
            };
            put(record, &[], text);
        }
        Event::Report {
            request,
            reason,
            json,
            text,
        } => {
            let record = EventRecord {
                request: *request,
                code: reason.as_ref().map_or(0, number),
                ..record(EventType::Report)
            };
            put(
                record,
                json.as_bytes(),
                reason.as_ref().map_or(text, |reason| &reason.text),
            );
        }
        Event::Mesh(event) => mesh(event, record, put),
        Event::Relay(event) => relay(event, record, put),
        Event::Notice { text } => put(record(EventType::Notice), &[], text),
    }
}

fn mesh(event: &MeshEvent, record: impl Fn(EventType) -> EventRecord, put: impl FnOnce(EventRecord, &[u8], &str)) {
    match event {
        MeshEvent::JoinStart { host, members, data } => {
            put(
                EventRecord {
                    peer: host.0,
                    count: *members,
                    ..record(EventType::VerifiedJoinStart)
                },
                data,
                "",
            );
        }
        MeshEvent::JoinCapable { request, joiner, data } => {
            put(
                EventRecord {
                    request: *request,
                    peer: joiner.0,
                    ..record(EventType::VerifiedJoinCapable)
                },
                data,
                "",
            );
        }
        MeshEvent::JoinAccepted { host, members, data } => {
            put(
                EventRecord {
                    peer: host.0,
                    count: *members,
                    ..record(EventType::VerifiedJoinAccepted)
                },
                data,
                "",
            );
        }
        MeshEvent::JoinRejected { host, data } => {
            let code = Code::Rejected.number();
            put(
                EventRecord {
                    peer: host.0,
                    code,
                    ..record(EventType::VerifiedJoinRejected)
                },
                data,
                "",
            );
        }
        MeshEvent::JoinFailed {
            request,
            peer,
            member,
            reason,
        } => {
            let record = EventRecord {
                request: *request,
                peer: peer.0,
                peer2: guid(*member),
                code: number(reason),
                ..record(EventType::VerifiedJoinFailed)
            };
            put(record, &[], &reason.text);
        }
        MeshEvent::NewHost { host, old } => {
            put(
                EventRecord {
                    peer: host.0,
                    peer2: guid(*old),
                    ..record(EventType::NewHost)
                },
                &[],
                "",
            );
        }
        MeshEvent::MemberJoined { member } => {
            put(
                EventRecord {
                    peer: member.0,
                    ..record(EventType::MemberJoined)
                },
                &[],
                "",
            );
        }
        MeshEvent::MemberLeft { member, reason } => {
            let code = number(reason);
            put(
                EventRecord {
                    peer: member.0,
                    code,
                    ..record(EventType::MemberLeft)
                },
                &[],
                &reason.text,
            );
        }
    }
}

fn relay(event: &RelayEvent, record: impl Fn(EventType) -> EventRecord, put: impl FnOnce(EventRecord, &[u8], &str)) {
    let text = event.reason().map_or("", |reason| reason.text.as_str());
    let of = |kind, request: u32, peer: Guid| EventRecord {
        request,
        peer: peer.0,
        code: event.reason().map_or(0, number),
        ..record(kind)
    };
    let record = match event {
        RelayEvent::RouterEstablished { request, peer, via } => EventRecord {
            peer2: via.0,
            path: PathKind::Routed.number(),
            ..of(EventType::RouterForwardingEstablished, *request, *peer)
        },
        RelayEvent::RouterFailed {
            request, peer, outcome, ..
        } => of(router_failure(*outcome), *request, *peer),
        RelayEvent::Rerouted { peer, via } => EventRecord {
            peer2: via.0,
            path: PathKind::Routed.number(),
            ..of(EventType::RouterRerouted, 0, *peer)
        },
        RelayEvent::ProxySucceeded { request, peer, address } => EventRecord {
            address: (*address).into(),
            path: PathKind::Proxied.number(),
            ..of(EventType::ProxyForwardingSucceeded, *request, *peer)
        },
        RelayEvent::ProxyFailed {
            request, peer, outcome, ..
        } => of(proxy_failure(*outcome), *request, *peer),
        RelayEvent::ProxyNotified { peer, address } => EventRecord {
            address: (*address).into(),
            path: PathKind::Proxied.number(),
            ..of(EventType::ProxyForwardingNotification, 0, *peer)
        },
    };
    put(record, &[], text);
}

fn router_failure(outcome: RouterOutcome) -> EventType {
    match outcome {
        RouterOutcome::NoPath => EventType::RouterForwardingNoPath,
        RouterOutcome::Failed => EventType::RouterForwardingFailed,
    }
}

fn proxy_failure(outcome: ProxyOutcome) -> EventType {
    match outcome {
        ProxyOutcome::NoServersOnline => EventType::ProxyNoServersOnline,
        ProxyOutcome::RecipientNotConnected => EventType::ProxyRecipientNotConnected,
        ProxyOutcome::AllServersBusy => EventType::ProxyAllServersBusy,
        ProxyOutcome::InProgress => EventType::ProxyInProgress,
    }
}

fn number(reason: &Reason) -> i32 {
    reason.code.number()
}

fn guid(guid: Option<Guid>) -> u64 {
    guid.map_or(0, |guid| guid.0)
}

fn requested(sender: bool) -> u32 {
    if sender { FLAG_REQUESTED } else { 0 }
}

fn nat_failure(outcome: NatOutcome) -> EventType {
    match outcome {
        NatOutcome::Failed => EventType::NatPunchthroughFailed,
        NatOutcome::TargetNotConnected => EventType::NatTargetNotConnected,
        NatOutcome::TargetUnresponsive => EventType::NatTargetUnresponsive,
        NatOutcome::ConnectionToTargetLost => EventType::NatConnectionToTargetLost,
        NatOutcome::AlreadyInProgress => EventType::NatAlreadyInProgress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_messages_are_told_with_their_number_and_peer() {
        for (count, told) in [(3, 3), (u64::MAX, u32::MAX)] {
            let mut seen = None;
            let peer = Guid(77);
            convert(&Event::Dropped { peer, count }, 5, |record, data, text| {
                assert!(data.is_empty() && text.is_empty());
                seen = Some(record);
            });
            let record = seen.unwrap();
            assert_eq!(
                (record.r#type, record.peer, record.count, record.time_us),
                (EventType::Dropped.number(), 77, told, 5)
            );
        }
    }
}
