//! The C ABI. Converts, checks, calls [`crate::shell`]; the header `include/lanline.h` is generated from these files.
//!
//! Doc comments here are written for C readers. The rules that hold for all calls stand at the top of the header (see
//! `build.rs`): inputs are copied, text is UTF-8 with a length, pointers must be valid for the lengths given.

// What makes a call safe is the same for all and stands at the top of the header.
#![allow(clippy::missing_safety_doc)]
// To C readers "[::]:0" is an address, not a link.
#![allow(rustdoc::broken_intra_doc_links)]

pub mod address;
pub mod error;
pub mod events;
pub mod mesh;
pub mod node;
pub mod panic;
pub mod peers;

mod check;
#[cfg(test)]
mod tests;

/// Id of a node; 0 is none. Ids are never pointers: one that is no longer valid is answered with LANLINE_INVALID_NODE.
pub type NodeId = u32;
/// Id of something that was asked for, unique within a node; 0: none. Each ends in exactly one event that carries it.
pub type RequestId = u32;
/// A player: 63 bits derived from its public key, the same for everybody; 0: none.
pub type Guid = u64;
