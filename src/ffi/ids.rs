//! Names of things that calls take and give.

/// Id of a node; 0 is none. Ids are never pointers: one that is no longer valid is answered with LANLINE_INVALID_NODE.
pub type NodeId = u32;
/// Id of something that was asked for, unique within a node; 0: none. Each ends in exactly one event that carries it.
pub type RequestId = u32;
/// A player: 63 bits derived from its public key, the same for everybody; 0: none.
pub type Guid = u64;
