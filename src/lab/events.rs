//! A node's events as owned values, with the virtual time at which they came.

use std::net::SocketAddr;
use std::time::Duration;

use crate::codes::{Code, MappingProtocol, PathKind, SendMode};
use crate::peer::api::nat::NatReport;
use crate::peer::api::relay::RelayEvent;
use crate::peer::api::{Event, MeshEvent, NatOutcome, Reason, RequestId};
use crate::transport::identity::{Guid, PublicKey};

/// An event and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Virtual time since the lab's start.
    pub time: Duration,
    /// The event.
    pub event: OwnedEvent,
}

/// [`Event`] without borrowed parts. Variants and fields are those of [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OwnedEvent {
    ServerConnected {
        request: RequestId,
        key: PublicKey,
        verified: bool,
        observed: SocketAddr,
    },
    ServerFailed {
        request: RequestId,
        reason: Reason,
    },
    ServerLost {
        reason: Reason,
    },
    ServerReconnected {
        key: PublicKey,
        observed: SocketAddr,
    },
    ServerDisconnected {
        request: RequestId,
    },
    NatSucceeded {
        request: RequestId,
        peer: Guid,
        path: PathKind,
        address: SocketAddr,
        sender: bool,
    },
    NatFailed {
        request: RequestId,
        peer: Guid,
        outcome: NatOutcome,
        reason: Reason,
        sender: bool,
    },
    Connected {
        request: RequestId,
        peer: Guid,
        path: PathKind,
        address: SocketAddr,
    },
    ConnectionFailed {
        request: RequestId,
        peer: Option<Guid>,
        address: Option<SocketAddr>,
        reason: Reason,
    },
    Disconnected {
        peer: Guid,
        reason: Reason,
        user_code: u32,
    },
    Message {
        peer: Guid,
        channel: u8,
        mode: SendMode,
        data: Vec<u8>,
    },
    Dropped {
        peer: Guid,
        count: u64,
    },
    PathChanged {
        peer: Guid,
        from: PathKind,
        to: PathKind,
        address: SocketAddr,
    },
    NatDetected {
        request: RequestId,
        report: Box<NatReport>,
        reason: Option<Reason>,
    },
    PortMapped {
        request: RequestId,
        external: SocketAddr,
        protocol: MappingProtocol,
        double_nat: bool,
        text: String,
    },
    PortMappingFailed {
        request: RequestId,
        reason: Reason,
    },
    PortMappingProgress {
        request: RequestId,
        text: String,
    },
    Report {
        request: RequestId,
        reason: Option<Reason>,
        json: String,
        text: String,
    },
    Mesh(MeshEvent),
    Relay(RelayEvent),
    Notice {
        text: String,
    },
}

impl OwnedEvent {
    /// The code of an event that carries a reason.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::ServerFailed { reason, .. }
            | Self::ServerLost { reason }
            | Self::NatFailed { reason, .. }
            | Self::ConnectionFailed { reason, .. }
            | Self::PortMappingFailed { reason, .. }
            | Self::Disconnected { reason, .. }
            | Self::Mesh(MeshEvent::JoinFailed { reason, .. } | MeshEvent::MemberLeft { reason, .. }) => {
                Some(reason.code)
            }
            Self::Relay(event) => event.reason().map(|reason| reason.code),
            _ => None,
        }
    }

    /// The request that this event ends, if it ends one.
    pub fn ends_request(&self) -> Option<RequestId> {
        match *self {
            Self::ServerConnected { request, .. }
            | Self::ServerFailed { request, .. }
            | Self::ServerDisconnected { request }
            | Self::NatSucceeded { request, .. }
            | Self::NatFailed { request, .. }
            | Self::Connected { request, .. }
            | Self::ConnectionFailed { request, .. }
            | Self::NatDetected { request, .. }
            | Self::PortMapped { request, .. }
            | Self::PortMappingFailed { request, .. }
            | Self::Report { request, .. }
            | Self::Mesh(MeshEvent::JoinCapable { request, .. } | MeshEvent::JoinFailed { request, .. }) => {
                (request != 0).then_some(request)
            }
            Self::Relay(ref event) => event.ends_request(),
            _ => None,
        }
    }
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::ServerConnected {
                request,
                key,
                verified,
                observed,
            } => Self::ServerConnected {
                request,
                key,
                verified,
                observed,
            },
            Event::ServerFailed { request, reason } => Self::ServerFailed { request, reason },
            Event::ServerLost { reason } => Self::ServerLost { reason },
            Event::ServerReconnected { key, observed } => Self::ServerReconnected { key, observed },
            Event::ServerDisconnected { request } => Self::ServerDisconnected { request },
            Event::NatSucceeded {
                request,
                peer,
                path,
                address,
                sender,
            } => Self::NatSucceeded {
                request,
                peer,
                path,
                address,
                sender,
            },
            Event::NatFailed {
                request,
                peer,
                outcome,
                reason,
                sender,
            } => Self::NatFailed {
                request,
                peer,
                outcome,
                reason,
                sender,
            },
            Event::Connected {
                request,
                peer,
                path,
                address,
            } => Self::Connected {
                request,
                peer,
                path,
                address,
            },
            Event::ConnectionFailed {
                request,
                peer,
                address,
                reason,
            } => Self::ConnectionFailed {
                request,
                peer,
                address,
                reason,
            },
            Event::Disconnected {
                peer,
                reason,
                user_code,
            } => Self::Disconnected {
                peer,
                reason,
                user_code,
            },
            Event::Message {
                peer,
                channel,
                mode,
                data,
            } => Self::Message {
                peer,
                channel,
                mode,
                data: data.to_vec(),
            },
            Event::Dropped { peer, count } => Self::Dropped { peer, count },
            Event::PathChanged {
                peer,
                from,
                to,
                address,
            } => Self::PathChanged {
                peer,
                from,
                to,
                address,
            },
            Event::NatDetected {
                request,
                report,
                reason,
            } => Self::NatDetected {
                request,
                report,
                reason,
            },
            Event::PortMapped {
                request,
                external,
                protocol,
                double_nat,
                text,
            } => Self::PortMapped {
                request,
                external,
                protocol,
                double_nat,
                text,
            },
            Event::PortMappingFailed { request, reason } => Self::PortMappingFailed { request, reason },
            Event::PortMappingProgress { request, text } => Self::PortMappingProgress { request, text },
            Event::Report {
                request,
                reason,
                json,
                text,
            } => Self::Report {
                request,
                reason,
                json,
                text,
            },
            Event::Mesh(event) => Self::Mesh(event),
            Event::Relay(event) => Self::Relay(event),
            Event::Notice { text } => Self::Notice { text },
        }
    }
}
