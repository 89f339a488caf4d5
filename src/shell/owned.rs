//! Events with their data, for programs in Rust that have time to copy.

use std::net::SocketAddr;

use super::failure::Failure;
use super::node::Node;
use super::record::EventRecord;
use crate::codes::{Code, EventType};

/// Events fetched by one call: a loop fetches the rest.
const BATCH: u32 = 64;

/// An event. The fields are those of [`EventRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedEvent {
    /// Which.
    pub kind: EventType,
    /// The request that it ends; 0: nobody asked.
    pub request: u32,
    /// OK, or the reason.
    pub code: Code,
    /// A number whose meaning the type tells.
    pub count: u32,
    /// Flags.
    pub flags: u32,
    /// An address whose meaning the type tells.
    pub address: Option<SocketAddr>,
    /// Payload.
    pub data: Vec<u8>,
    /// In words.
    pub text: String,
}

/// The node's events until now, in order; at most a batch.
///
/// # Errors
/// BUSY.
pub fn poll(node: &Node) -> Result<Vec<OwnedEvent>, Failure> {
    let mut events = Vec::new();
    // Copied inside of the poll: nobody else can poll meanwhile.
    node.poll(BATCH, |_, record| events.extend(copied(&record)))?;
    Ok(events)
}

fn copied(record: &EventRecord) -> Option<OwnedEvent> {
    let bytes = |pointer: *const u8, length: u32| match length {
        0 => Vec::new(),
        // SAFETY: written by the node's queue for the poll that is under way, and alive until the next one.
        _ => unsafe { std::slice::from_raw_parts(pointer, length as usize) }.to_vec(),
    };
    Some(OwnedEvent {
        kind: EventType::from_number(record.r#type)?,
        request: record.request,
        code: Code::from_number(record.code).unwrap_or(Code::Ok),
        count: record.count,
        flags: record.flags,
        address: record.address.socket_addr(),
        data: bytes(record.data, record.data_len),
        text: String::from_utf8_lossy(&bytes(record.text.cast(), record.text_len)).into_owned(),
    })
}
