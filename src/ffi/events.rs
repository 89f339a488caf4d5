//! Polling and waiting.

use std::mem::{offset_of, size_of};
use std::time::Duration;

use super::panic::guard;
use super::{NodeId, check};
use crate::shell;
use crate::shell::record::EventRecord;

/// Offsets of the event's fields in the order of `LANLINE_FIELD_…`.
pub(super) const FIELD_OFFSETS: [usize; 18] = [
    offset_of!(EventRecord, r#type),
    offset_of!(EventRecord, request),
    offset_of!(EventRecord, time_us),
    offset_of!(EventRecord, peer),
    offset_of!(EventRecord, peer2),
    offset_of!(EventRecord, code),
    offset_of!(EventRecord, flags),
    offset_of!(EventRecord, channel),
    offset_of!(EventRecord, mode),
    offset_of!(EventRecord, path),
    offset_of!(EventRecord, path_from),
    offset_of!(EventRecord, count),
    offset_of!(EventRecord, address),
    offset_of!(EventRecord, data),
    offset_of!(EventRecord, data_len),
    offset_of!(EventRecord, text_len),
    offset_of!(EventRecord, text),
    offset_of!(EventRecord, reserved),
];

/// Takes up to capacity events, oldest first. Never blocks and never allocates; call it once a frame until it
/// returns less than capacity. Data and text of the events are borrowed: they live until the next poll of this
/// node (which returns them to the library), its destroy, or shutdown.
///
/// @param node the node
/// @param out room for `capacity` events; may be NULL if capacity is 0
/// @param stride bytes from one event to the next: sizeof(lanline_event)
/// @param capacity most events to take
/// @return how many were taken; LANLINE_INVALID_NODE; LANLINE_BUSY (another thread polls this node);
///         LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread, one at a time for a node. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_poll(node: NodeId, out: *mut EventRecord, stride: u32, capacity: u32) -> i32 {
    guard(|| {
        check::list(out, stride, capacity, size_of::<EventRecord>())?;
        shell::with_node(node, |node| {
            // SAFETY: the caller vouches for the room; the rest was checked.
            node.poll(capacity, |index, event| unsafe {
                out.byte_add(index * stride as usize).write(event)
            })
        })
    })
}

/// Blocks until there are events for lanline_poll, or the time is over, or the node is destroyed. For servers,
/// tests and tools; a game with a frame loop needs it not.
///
/// @param node the node
/// @param timeout_ms most milliseconds to block; 0: only look
/// @return 1 if there are events, 0 if the time is over; LANLINE_INVALID_NODE (also if the node is destroyed
///         meanwhile); LANLINE_BUSY (another thread waits on this node)
///
/// Thread safety: any thread, one at a time for a node. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_wait(node: NodeId, timeout_ms: u32) -> i32 {
    guard(|| shell::with_node(node, |node| node.wait(Duration::from_millis(timeout_ms.into()))).map(i32::from))
}
