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
pub mod ids;
pub mod mesh;
pub mod nat;
pub mod node;
pub mod panic;
pub mod peers;
pub mod relays;

mod check;
#[cfg(test)]
mod tests;

pub use ids::{Guid, NodeId, RequestId};
