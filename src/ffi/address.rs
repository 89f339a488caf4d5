//! Addresses as text.

use std::ffi::c_char;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::check;
use super::panic::guard;
use crate::shell::failure::Failure;
use crate::shell::record::AddressRecord;

/// Longest address as text: an IPv6 address in brackets with scope and port needs 62 bytes.
const MAX_ADDRESS_TEXT: usize = 80;

/// Reads "1.2.3.4:5", "[2001:db8::1]:5", "1.2.3.4" or "2001:db8::1" (port 0). Numbers only: names are
/// resolved by the calls that take them.
///
/// @param text the address, UTF-8
/// @param len bytes at text
/// @param out where to
/// @return LANLINE_OK, or LANLINE_INVALID_ARGUMENT (text is not an address, something is NULL)
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_address_parse(text: *const c_char, len: u32, out: *mut AddressRecord) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        let text = unsafe { check::text(text, len, MAX_ADDRESS_TEXT, "text") }?;
        let address = parse(text).ok_or_else(|| {
            Failure::argument(format!("`text` is not an address: \"{text}\"; expected IP or IP:PORT"))
        })?;
        // SAFETY: as above.
        *unsafe { check::output(out, "out") }? = address.into();
        Ok(0)
    })
}

/// Writes an address as "1.2.3.4:5" or "[2001:db8::1]:5", with a NUL behind it, cut to fit; an empty
/// text if its family is 0.
///
/// @param address the address
/// @param buffer where to; may be NULL if capacity is 0
/// @param capacity bytes at buffer, the NUL included; 64 are always enough
/// @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_ARGUMENT (NULL, unknown family)
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_address_format(
    address: *const AddressRecord,
    buffer: *mut c_char,
    capacity: u32,
) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        let address = unsafe { check::input(address, "address") }?;
        let mut text = String::new();
        match address.socket_addr() {
            Some(address) => {
                let _ = write!(text, "{address}");
            }
            None if address.family == 0 => {}
            None => {
                return Err(Failure::argument(format!(
                    "`address` has the unknown family {}; 0, 4 and 6 are known",
                    address.family
                )));
            }
        }
        // SAFETY: as above.
        unsafe { check::write_text(text.as_bytes(), buffer, capacity) }
    })
}

fn parse(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
}
