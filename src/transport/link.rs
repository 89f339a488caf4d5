//! One connection and what belongs to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection, ConnectionEvent, ConnectionHandle, Dir, Event, StreamEvent, StreamId, Transmit, VarInt};
use rustls::pki_types::CertificateDer;

use super::config;
use super::control::{self, ControlReceiver, ControlSender};
use super::framing::stream::Malformed;
use super::half_open::{self, Budget, Class};
use super::reliable::{self, ReliableReceiver, ReliableSender, Taken};
use super::tls::{TurnedDownKey, key_of_spki};
use super::unreliable::{self, Received, UnreliableReceiver, UnreliableSender};
use super::{
    CloseInfo, CloseReason, LinkEvent, LinkId, LinkKind, LinkStats, Message, SendError, SyntheticAddress, close,
};
use crate::codes::{CHANNEL_COUNT, Code, SendMode};

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Handshaking,
    Connected,
    Closed,
}

/// The game's messages; links to servers have none.
#[derive(Default)]
struct Channels {
    unreliable_out: UnreliableSender,
    unreliable_in: UnreliableReceiver,
    reliable_out: ReliableSender,
    reliable_in: ReliableReceiver,
    dropped: u64,
}

/// Where a message that was taken lies.
pub(super) enum Place {
    Unreliable(Received),
    Reliable(Taken),
}

/// A link.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    pub(super) address: SyntheticAddress,
    pub(super) dialled: bool,
    pub(super) stage: Stage,
    /// An incoming handshake that runs, as what it was accepted.
    pub(super) half_open: Option<Class>,
    /// The other side's address is not proven: no more bytes go out than came in.
    pub(super) budget: Option<Budget>,
    /// quinn is done with the connection.
    pub(super) drained: bool,
    /// The caller is done with the link.
    pub(super) forgotten: bool,
    /// There is no path yet: nothing is sent, and no timer runs.
    pub(super) held: bool,
    /// The caller knows of it although its handshake is not done: it gets a `Closed`.
    pub(super) announced: bool,
    /// The other side's first flight has just been understood: an answer may go with this side's.
    pub(super) greetable: bool,
    /// In the list of links that may have something to transmit.
    pub(super) wants_transmit: bool,
    /// In the list of links whose deadline may have changed.
    pub(super) wants_timer: bool,
    /// The deadline that stands in the timers.
    pub(super) deadline: Option<Instant>,
    /// A `Readable` waits in the events.
    pub(super) readable_pending: bool,
    /// `SendError::Full` was returned and `Writable` not reported yet.
    wants_room: bool,
    pub(super) kind: LinkKind,
    turned_down: TurnedDownKey,
    created: Instant,
    last_received: Instant,
    /// When the last urgent control message was queued, and how many of its pings are out.
    urgent: Option<(Instant, usize)>,
    lost_peer_timeout: Duration,
    control_out: ControlSender,
    control_in: ControlReceiver,
    channels: Option<Box<Channels>>,
    messages_sent: u64,
    messages_received: u64,
}

/// What a new link is made of.
pub(super) struct NewLink {
    pub(super) id: LinkId,
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    pub(super) address: SyntheticAddress,
    pub(super) dialled: bool,
    pub(super) kind: LinkKind,
    pub(super) turned_down: TurnedDownKey,
    pub(super) lost_peer_timeout: Duration,
    pub(super) half_open: Option<Class>,
}

impl Link {
    pub(super) fn new(now: Instant, new: NewLink) -> Self {
        Self {
            id: new.id,
            handle: new.handle,
            connection: new.connection,
            address: new.address,
            dialled: new.dialled,
            stage: Stage::Handshaking,
            half_open: new.half_open,
            budget: matches!(new.half_open, Some(Class::Unproven(_))).then_some(Budget { received: 0, sent: 0 }),
            drained: false,
            forgotten: false,
            held: false,
            announced: new.half_open.is_none(),
            greetable: false,
            wants_transmit: false,
            wants_timer: false,
            deadline: None,
            readable_pending: false,
            wants_room: false,
            kind: new.kind,
            turned_down: new.turned_down,
            created: now,
            last_received: now,
            urgent: None,
            lost_peer_timeout: new.lost_peer_timeout,
            control_out: ControlSender::default(),
            control_in: ControlReceiver::default(),
            channels: None,
            messages_sent: 0,
            messages_received: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Closed
    }

    /// There is a path now. The time without one was no silence.
    pub(super) fn release(&mut self, now: Instant) {
        self.held = false;
        self.last_received = now;
    }

    /// A packet for this link came.
    pub(super) fn note_received(&mut self, now: Instant, size: usize) {
        self.last_received = now;
        if let Some(budget) = &mut self.budget {
            budget.received += size as u64;
        }
    }

    /// Hands quinn what came. A Handshake packet that could be decrypted proves the address (RFC 9000 §8.1): its keys follow from our reply.
    /// From then on the reply's rest may go out, whatever came in; the sender's small repeats alone would never pay for it.
    pub(super) fn handle_event(&mut self, event: ConnectionEvent, is_handshake: bool) {
        let understood = |connection: &Connection| {
            let frames = connection.stats().frame_rx;
            frames.acks + frames.crypto + frames.ping
        };
        if self.budget.is_none() || !is_handshake {
            self.connection.handle_event(event);
            return;
        }
        let before = understood(&self.connection);
        self.connection.handle_event(event);
        if understood(&self.connection) > before {
            self.budget = None;
        }
    }

    /// Appends the next packets to `buffer`, which is empty: quinn takes its start for the first packet's.
    pub(super) fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let Some(budget) = self.budget else {
            return self.connection.poll_transmit(now, config::MAX_SEGMENTS, buffer);
        };
        loop {
            let most = self.budget.map_or(0, Budget::datagrams).min(config::MAX_SEGMENTS);
            if most == 0 {
                return None;
            }
            let handshake_frames = self.connection.stats().frame_tx.crypto;
            let transmit = self.connection.poll_transmit(now, most, buffer)?;
            // A bare acknowledgement would use up what the repeat of a lost reply needs.
            if self.stage == Stage::Handshaking && self.connection.stats().frame_tx.crypto == handshake_frames {
                buffer.clear();
                continue;
            }
            self.budget = Some(Budget {
                sent: budget.sent + buffer.len() as u64,
                ..budget
            });
            return Some(transmit);
        }
    }

    /// Silence for so long means that the other side is lost. Both sides' smaller value counts.
    fn patience(&self) -> Duration {
        self.control_in
            .peer_timeout()
            .map_or(self.lost_peer_timeout, |theirs| theirs.min(self.lost_peer_timeout))
    }

    /// When this link is given up if nothing comes. QUIC's own idle timer starts again with the first packet that is sent after one
    /// was received, so that it may take twice as long.
    fn silence_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Closed => None,
            Stage::Connected => Some(self.last_received + self.patience()),
            Stage::Handshaking if self.dialled => Some(self.last_received + self.lost_peer_timeout),
            Stage::Handshaking => {
                let most = match self.budget {
                    Some(_) => half_open::UNPROVEN_TIME,
                    None => config::INCOMING_HANDSHAKE_TIME,
                };
                Some(self.created + self.lost_peer_timeout.min(most))
            }
        }
    }

    /// When this link wants to be called next.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        if self.held {
            return None;
        }
        let quic = if self.drained {
            None
        } else {
            self.connection.poll_timeout()
        };
        [quic, self.silence_deadline(), self.ping_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What was queued last shall survive a loss quickly.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.urgent = Some((now, 0));
    }

    fn ping_deadline(&self) -> Option<Instant> {
        let (began, sent) = self.urgent?;
        Some(began + *config::URGENT_PINGS.get(sent)?)
    }

    /// Sends the ping that is due.
    fn ping_if_due(&mut self, now: Instant) {
        let Some((began, sent)) = self.urgent else { return };
        if self.ping_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let last = sent + 1 == config::URGENT_PINGS.len();
        self.urgent = if last { None } else { Some((began, sent + 1)) };
        if self.is_open() {
            self.connection.ping();
        }
    }

    /// Time passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if !self.drained {
            self.connection.handle_timeout(now);
        }
        self.ping_if_due(now);
        if let Some(channels) = &mut self.channels {
            // Traffic moves the deadline all the time; a link that comes here without any has been quiet for a keep-alive.
            if now.saturating_duration_since(self.last_received) > Duration::from_secs(1) {
                channels.unreliable_in.shrink();
                channels.unreliable_out.shrink();
                channels.reliable_out.shrink();
            }
        }
    }

    /// True if the other side has been silent for too long.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        self.silence_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Sends a control message together with this side's part of the handshake, before the other side has proven its key. False if it
    /// is too late or too early for that.
    pub(super) fn send_early(&mut self, message: &[u8]) -> bool {
        if self.stage != Stage::Handshaking || self.dialled || self.budget.is_some() {
            return false;
        }
        self.control_out.open(&mut self.connection, self.lost_peer_timeout);
        self.announced = self.control_out.is_open() && self.control_out.push(message).is_ok();
        self.announced
    }

    /// Moves what quinn has to say into events. `Some`: the link ended.
    pub(super) fn process(&mut self, now: Instant) -> (Option<LinkEvent>, Option<CloseReason>) {
        let mut connected = None;
        while let Some(event) = self.connection.poll() {
            if self.stage == Stage::Closed {
                continue;
            }
            match event {
                Event::Connected => match self.connected() {
                    Ok(event) => connected = Some(event),
                    Err(reason) => return (None, Some(reason)),
                },
                Event::ConnectionLost { reason } => {
                    // What came before the end may still be read.
                    if self.stage == Stage::Connected {
                        let _ = self.read(now);
                    }
                    let reason = match self.turned_down.get() {
                        Some(&key) => CloseReason::WrongKey(key),
                        None => close::reason_of(&reason, self.stage == Stage::Connected),
                    };
                    return (connected, Some(reason));
                }
                Event::Stream(event) => self.stream_event(event),
                Event::HandshakeDataReady => {
                    self.greetable =
                        self.kind == LinkKind::Peer && self.half_open == Some(Class::Trusted) && connected.is_none();
                }
                Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        if self.stage == Stage::Connected && self.read(now).is_err() {
            return (
                connected,
                Some(CloseReason::ProtocolViolation("malformed message".into())),
            );
        }
        (connected, None)
    }

    fn connected(&mut self) -> Result<LinkEvent, CloseReason> {
        let session = self.connection.crypto_session();
        let alpn = session
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol);
        let own = [self.kind];
        let possible = if self.dialled { &own[..] } else { self.kind.accepted() };
        let Some(kind) = possible.iter().find(|kind| alpn.as_deref() == Some(kind.alpn())) else {
            return Err(CloseReason::Incompatible);
        };
        let key = session
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| key_of_spki(chain.first()?));
        let Some(key) = key else {
            return Err(CloseReason::ProtocolViolation("no raw public key".into()));
        };
        self.kind = *kind;
        self.stage = Stage::Connected;
        self.budget = None;
        if self.kind == LinkKind::Peer {
            self.channels = Some(Box::default());
        }
        if !self.control_out.is_open() {
            self.control_out.open(&mut self.connection, self.lost_peer_timeout);
        }
        Ok(LinkEvent::Connected {
            link: self.id,
            address: self.address,
            key,
            dialled: self.dialled,
        })
    }

    fn stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = self.connection.streams().accept(Dir::Uni) {
                    self.accept(stream);
                }
            }
            StreamEvent::Readable { id } => {
                if let (Some(channels), true) = (&mut self.channels, id.index() > 0) {
                    channels.reliable_in.readable(id);
                }
            }
            StreamEvent::Finished { id } => {
                if let Some(channels) = &mut self.channels {
                    channels.reliable_out.finished(id);
                }
            }
            StreamEvent::Opened { dir: Dir::Bi }
            | StreamEvent::Writable { .. }
            | StreamEvent::Stopped { .. }
            | StreamEvent::Available { .. } => {}
        }
    }

    fn accept(&mut self, stream: StreamId) {
        if stream.index() == 0 {
            self.control_in.accept(stream);
        } else if let Some(channels) = &mut self.channels {
            channels.reliable_in.accept(stream);
        } else {
            // Room for later versions: this one does not know what such a stream says.
            let _ = self.connection.recv_stream(stream).stop(VarInt::from_u32(0));
        }
    }

    /// Takes from quinn what is not left there on purpose.
    fn read(&mut self, now: Instant) -> Result<(), Malformed> {
        self.control_in.read(&mut self.connection)?;
        while let Some(frame) = self.connection.datagrams().recv() {
            if let Some(channels) = &mut self.channels
                && !channels.unreliable_in.receive(now, &frame)
            {
                channels.dropped += 1;
            }
        }
        Ok(())
    }

    /// True if there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        self.control_in.has_messages()
            || self.channels.as_ref().is_some_and(|channels| {
                channels.unreliable_in.has_messages() || channels.reliable_in.may_have_messages()
            })
    }

    /// Hands everything that waits to quinn, as far as it takes it. True: there is room again that somebody waits for.
    pub(super) fn flush(&mut self) -> bool {
        if self.stage != Stage::Connected {
            if self.is_open() {
                self.control_out.flush(&mut self.connection);
            }
            return false;
        }
        if let Some(channels) = &mut self.channels {
            channels.reliable_out.note_taken(self.control_in.taken());
            if let Some(taken) = channels.reliable_in.total_to_report() {
                self.control_out.push_taken(taken);
            }
        }
        self.control_out.flush(&mut self.connection);
        let mut has_room = self.control_out.queued() <= control::MAX_SEND_QUEUE / 2;
        if let Some(channels) = &mut self.channels {
            channels.unreliable_out.flush(&mut self.connection);
            channels.reliable_out.flush(&mut self.connection);
            has_room &= channels.unreliable_out.queued() <= unreliable::MAX_SEND_QUEUE / 2
                && channels.reliable_out.queued() <= reliable::MAX_SEND_QUEUE / 2;
        }
        self.wants_room && has_room && std::mem::replace(&mut self.wants_room, false)
    }

    #[inline]
    pub(super) fn send(&mut self, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), SendError> {
        let channels = match (&mut self.channels, self.stage) {
            (Some(channels), Stage::Connected) if channel < CHANNEL_COUNT => channels,
            _ => return Err(SendError::NotConnected),
        };
        let result = match mode {
            SendMode::Unreliable => channels.unreliable_out.push(channel, false, data),
            SendMode::UnreliableSequenced => channels.unreliable_out.push(channel, true, data),
            SendMode::Reliable => channels.reliable_out.push_unordered(channel, data),
            SendMode::ReliableOrdered => channels.reliable_out.push_ordered(channel, data),
        };
        self.note_sent(result)
    }

    pub(super) fn send_shared(&mut self, channel: u8, mode: SendMode, data: Bytes) -> Result<(), SendError> {
        let channels = match (&mut self.channels, self.stage) {
            (Some(channels), Stage::Connected) if channel < CHANNEL_COUNT => channels,
            _ => return Err(SendError::NotConnected),
        };
        let result = match mode {
            SendMode::Reliable => channels.reliable_out.push_unordered_shared(channel, data),
            SendMode::ReliableOrdered => channels.reliable_out.push_ordered_shared(channel, data),
            SendMode::Unreliable | SendMode::UnreliableSequenced => return self.send(channel, mode, &data),
        };
        self.note_sent(result)
    }

    #[inline]
    fn note_sent(&mut self, result: Result<(), SendError>) -> Result<(), SendError> {
        match result {
            Ok(()) => self.messages_sent += 1,
            Err(SendError::Full) => self.wants_room = true,
            Err(_) => {}
        }
        result
    }

    pub(super) fn send_control(&mut self, message: &[u8]) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::NotConnected);
        }
        let result = self.control_out.push(message);
        if result == Err(SendError::Full) {
            self.wants_room = true;
        }
        result
    }

    pub(super) fn next_control(&mut self) -> Result<Option<Bytes>, Malformed> {
        if !self.control_in.has_messages() {
            self.control_in.read(&mut self.connection)?;
        }
        Ok(self.control_in.pop())
    }

    /// Takes the next game message. `should_transmit` is set if flow control has something to tell the sender.
    pub(super) fn take_message(
        &mut self,
        reliable_room: bool,
        should_transmit: &mut bool,
    ) -> Result<Option<Place>, Malformed> {
        let Some(channels) = &mut self.channels else {
            return Ok(None);
        };
        let place = match channels.unreliable_in.pop() {
            Some(received) => Some(Place::Unreliable(received)),
            None if reliable_room => match channels.reliable_in.take(&mut self.connection, should_transmit) {
                Ok(taken) => taken.map(Place::Reliable),
                Err(malformed) => {
                    channels.reliable_in = ReliableReceiver::default();
                    return Err(malformed);
                }
            },
            None => None,
        };
        self.messages_received += u64::from(place.is_some());
        Ok(place)
    }

    /// The message that was taken last.
    pub(super) fn message(&self, place: &Place) -> Option<Message<'_>> {
        let channels = self.channels.as_ref()?;
        Some(match place {
            Place::Unreliable(received) => Message {
                channel: received.channel,
                mode: received.mode,
                data: channels.unreliable_in.slice(received.range.clone()),
            },
            Place::Reliable(taken) => Message {
                channel: taken.channel,
                mode: taken.mode,
                data: channels.reliable_in.data(taken),
            },
        })
    }

    /// Ends the connection, telling the other side why.
    pub(super) fn close(&mut self, now: Instant, reason: &CloseReason, info: Option<&CloseInfo>) {
        self.stage = Stage::Closed;
        self.control_out.clear();
        if let Some(channels) = &mut self.channels {
            channels.unreliable_out.clear();
            channels.reliable_out.clear();
        }
        if self.connection.is_closed() {
            return;
        }
        let own;
        let info = match info {
            Some(info) => info,
            None => {
                let (code, text) = match reason {
                    CloseReason::TimedOut | CloseReason::NoAnswer => (Code::Lost, ""),
                    CloseReason::Incompatible => (Code::Incompatible, ""),
                    CloseReason::ProtocolViolation(text) => (Code::ProtocolViolation, text.as_str()),
                    _ => (Code::Closed, ""),
                };
                own = CloseInfo {
                    code: code.number(),
                    user_code: 0,
                    text: text.to_owned(),
                };
                &own
            }
        };
        let (code, reason) = close::encode(info);
        self.connection.close(now, code, reason);
    }

    pub(super) fn silence_reason(&self) -> CloseReason {
        match self.stage {
            Stage::Handshaking => CloseReason::NoAnswer,
            _ => CloseReason::TimedOut,
        }
    }

    /// Unreliable messages that were dropped since the last call, because the game did not take them, parts of them were lost, or the
    /// path became too small for them.
    pub(super) fn take_unreliable_dropped(&mut self) -> u64 {
        self.channels.as_mut().map_or(0, |channels| {
            std::mem::take(&mut channels.dropped)
                + channels.unreliable_in.take_dropped()
                + channels.unreliable_out.take_dropped()
        })
    }

    fn queued(&self) -> usize {
        let channels = self.channels.as_ref();
        self.control_out.queued()
            + channels.map_or(0, |channels| {
                channels.unreliable_out.queued() + channels.reliable_out.queued()
            })
    }

    /// Nothing waits to be sent, and everything reliable has arrived.
    pub(super) fn is_delivered(&mut self) -> bool {
        self.queued() == 0 && self.control_out.nothing_unacknowledged(&mut self.connection)
    }

    pub(super) fn stats(&self) -> LinkStats {
        let stats = self.connection.stats();
        let queued = self.queued();
        LinkStats {
            round_trip: stats.path.rtt,
            min_round_trip: stats.path.min_rtt,
            datagrams_sent: stats.udp_tx.datagrams,
            datagrams_received: stats.udp_rx.datagrams,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_lost: stats.path.lost_packets,
            messages_sent: self.messages_sent,
            messages_received: self.messages_received,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            bytes_queued: queued as u64,
        }
    }
}
