//! Messages between two players beside the game's own, over one ordered QUIC stream each way: the greeting, then those of the mesh and
//! those about ways through other players.
//!
//! A message is a u8 type and its fields in this order (fields: [`Reader`]):
//!
//! | type | | fields |
//! |---|---|---|
//! | 1 | Hello | u16 protocol, text app (1–64 bytes), u64 incarnation |
//! | 2 | Welcome | the same |
//! | 3 … 15 | | messages of [`super::routing`], with their own type number |
//! | 16 … 255 | | messages of [`super::mesh`], with their own type number |
//!
//! The dialler says Hello and is answered with Welcome. A dialled side that knows who comes may say Hello first, with its part of the handshake: the
//! dialler counts as connected from then on, and Welcome follows all the same.
//!
//! Type and protocol stay where they are in every version ([`super::peek_protocol`]).
//!
//! [`Reader`]: super::Reader

use super::codec::struct_codec;
use super::mesh::MeshMessage;
use super::routing::RouteMessage;
use super::{DecodeError, MAX_CONTROL_MESSAGE, Reader, Writer};

/// The first message of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// [`super::PROTOCOL_VERSION`].
    pub protocol: u16,
    /// The game's identifier.
    pub app: String,
    /// Drawn when the node was created: tells a player that came back from a second connection of the same one.
    pub incarnation: u64,
}

/// Player to player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerControl {
    /// From the side that dialled; the first message.
    Hello(PeerHello),
    /// From the side that was dialled: the connection is accepted. (A refusal is a close with a code.)
    Welcome(PeerHello),
    /// Ways through other players.
    Route(RouteMessage),
    /// The mesh.
    Mesh(MeshMessage),
}

/// Type number of [`PeerControl::Hello`].
const HELLO: u8 = 1;
/// Type number of [`PeerControl::Welcome`].
const WELCOME: u8 = 2;
/// The first type number about ways through other players.
const FIRST_ROUTE_TYPE: u8 = 3;
/// The first type number of the mesh.
const FIRST_MESH_TYPE: u8 = 16;

struct_codec!(PeerHello {
    protocol: u16,
    app: app_id,
    incarnation: u64
});

impl PeerControl {
    /// Appends the message: its type number, then its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (number, hello) = match self {
            Self::Hello(hello) => (HELLO, hello),
            Self::Welcome(hello) => (WELCOME, hello),
            Self::Route(message) => return message.encode(out),
            Self::Mesh(message) => return message.encode(out),
        };
        let mut writer = Writer::new(out);
        writer.u8(&number);
        hello.write_fields(&mut writer);
    }

    /// Reads one message. Bytes behind what this version knows are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_CONTROL_MESSAGE {
            return Err(DecodeError::TooLong("message"));
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            HELLO => PeerHello::read_fields(&mut reader).map(Self::Hello),
            WELCOME => PeerHello::read_fields(&mut reader).map(Self::Welcome),
            FIRST_ROUTE_TYPE..FIRST_MESH_TYPE => RouteMessage::decode(bytes).map(Self::Route),
            FIRST_MESH_TYPE.. => MeshMessage::decode(bytes).map(Self::Mesh),
            unknown => Err(DecodeError::UnknownType(unknown)),
        }
    }
}
