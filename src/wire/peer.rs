//! Messages between two players beside the game's own, over one ordered QUIC stream each way: the greeting, then the
//! mesh's messages.

use super::mesh::MeshMessage;

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
    /// The mesh.
    Mesh(MeshMessage),
}
