//! The thread's last error, and names of numbers.

use std::cell::RefCell;
use std::ffi::{CStr, c_char};

use super::check;
use super::panic::{guard, guard_value};
use crate::codes::{Code, Connectivity, EventType, MappingProtocol, NatType, PathKind, SendMode};

/// Longest error text kept, in bytes: a sentence with a path or an address in it. Fixed, so that failing allocates nothing.
const LAST_ERROR_CAPACITY: usize = 512;

struct LastError {
    bytes: [u8; LAST_ERROR_CAPACITY],
    length: usize,
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { bytes: [0; LAST_ERROR_CAPACITY], length: 0 }) };
}

/// Keeps `text` as this thread's last error, cut at a character if it is too long.
pub(crate) fn remember(text: &str) {
    remember_parts(&[text]);
}

/// As [`remember`], for a text in several parts.
pub(crate) fn remember_parts(parts: &[&str]) {
    // The thread may be ending; then nobody can ask any more.
    let _ = LAST_ERROR.try_with(|slot| {
        let mut slot = slot.borrow_mut();
        slot.length = 0;
        for part in parts {
            let start = slot.length;
            let cut = check::cut(part, LAST_ERROR_CAPACITY - start);
            slot.bytes[start..start + cut.len()].copy_from_slice(cut.as_bytes());
            slot.length += cut.len();
        }
    });
}

/// Writes why the last failed call of this thread failed, in words for a developer, UTF-8 with a NUL
/// behind it, cut to fit. Only meaningful directly after a call on the same thread returned a negative number.
///
/// @param buffer where to; may be NULL if capacity is 0
/// @param capacity bytes at buffer, the NUL included
/// @return the bytes that the whole text needs, without the NUL (at most 512); negative upon bad arguments
///
/// Thread safety: any thread; each thread has its own text. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_last_error(buffer: *mut c_char, capacity: u32) -> i32 {
    // Not through `Failure`: asking for the last error must not overwrite it unless the question itself is wrong.
    guard(|| {
        LAST_ERROR.with(|slot| {
            let text = slot.borrow();
            // SAFETY: the caller vouches for buffer and capacity.
            unsafe { check::write_text(&text.bytes[..text.length], buffer, capacity) }
        })
    })
}

/// The name of a result or reason: "OK", "NOT_CONNECTED", …; "UNKNOWN" for a number that is none.
/// Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_result_name(code: i32) -> *const c_char {
    name_or_unknown(Code::from_number(code).map(Code::name_c))
}

/// The name of an event type: "CONNECTED", "MESSAGE", …; "UNKNOWN" for a number that is none.
/// Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_event_name(r#type: u32) -> *const c_char {
    name_or_unknown(EventType::from_number(r#type).map(EventType::name_c))
}

/// The name of a path: "none", "lan", "direct", "routed", "proxied"; "UNKNOWN" for a number that is none.
/// Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_path_name(path: u8) -> *const c_char {
    name_or_unknown(PathKind::from_number(path).map(PathKind::name_c))
}

/// The name of a send mode: "unreliable", "unreliable_sequenced", "reliable", "reliable_ordered";
/// "UNKNOWN" for a number that is none. Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mode_name(mode: u8) -> *const c_char {
    name_or_unknown(SendMode::from_number(mode).map(SendMode::name_c))
}

/// The name of a kind of NAT: "NONE", "FULL_CONE", "ADDRESS_RESTRICTED", "PORT_RESTRICTED", "SYMMETRIC", "UNKNOWN"; "UNKNOWN" for
/// a number that is none, too. Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_nat_type_name(r#type: u32) -> *const c_char {
    let known = u8::try_from(r#type).ok().and_then(NatType::from_number);
    name_or_unknown(known.map(NatType::name_c))
}

/// The name of what two players can do: "YES", "MAYBE", "NEVER"; "UNKNOWN" for a number that is none.
/// Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_connectivity_name(connectivity: u8) -> *const c_char {
    name_or_unknown(Connectivity::from_number(connectivity).map(Connectivity::name_c))
}

/// The name of a protocol for port mapping: "upnp", "pcp", "natpmp"; "UNKNOWN" for a number that is none.
/// Static text, never NULL, never to be freed.
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_mapping_name(protocol: u32) -> *const c_char {
    let known = u8::try_from(protocol).ok().and_then(MappingProtocol::from_number);
    name_or_unknown(known.map(MappingProtocol::name_c))
}

fn name_or_unknown(name: Option<&'static CStr>) -> *const c_char {
    guard_value(c"UNKNOWN".as_ptr(), || name.unwrap_or(c"UNKNOWN").as_ptr())
}
