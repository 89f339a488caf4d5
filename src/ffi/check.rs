//! Checks of arguments. Each names the argument in its text.

use std::ffi::{c_char, c_void};

use crate::shell::failure::Failure;
use crate::transport::identity::Guid;

/// No input is longer than what fits a signed 32-bit integer (languages with signed lengths).
const MAX_LENGTH: u32 = i32::MAX as u32;

/// A readable pointer, or a failure that names it.
///
/// # Safety
/// If not NULL, `pointer` must be valid for reads of `T` as long as the result is used.
pub(crate) unsafe fn input<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: not NULL, and the caller vouches for the rest; alignment is checked.
    not_null(pointer, name).map(|pointer| unsafe { &*pointer })
}

/// A writable pointer, or a failure that names it.
///
/// # Safety
/// If not NULL, `pointer` must be valid for writes of `T` as long as the result is used.
pub(crate) unsafe fn output<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    not_null(pointer.cast_const(), name)?;
    // SAFETY: not NULL and aligned; the caller vouches for the rest. All output types are plain numbers.
    Ok(unsafe { &mut *pointer })
}

fn not_null<T>(pointer: *const T, name: &str) -> Result<*const T, Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("`{name}` is NULL")));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(format!(
            "`{name}` is not aligned to {} bytes",
            align_of::<T>()
        )));
    }
    Ok(pointer)
}

/// `length` bytes; NULL is allowed if `length` is 0.
///
/// # Safety
/// `pointer` must be valid for reads of `length` bytes as long as the result is used.
pub(crate) unsafe fn bytes<'a>(
    pointer: *const c_void,
    length: u32,
    limit: usize,
    name: &str,
) -> Result<&'a [u8], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Failure::argument(format!(
            "`{name}` is NULL, but its length is {length}"
        )));
    }
    if length > MAX_LENGTH || length as usize > limit {
        return Err(Failure::argument(format!(
            "`{name}` is {length} bytes long; at most {limit} are allowed"
        )));
    }
    // SAFETY: not NULL, and the caller vouches for the length.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), length as usize) })
}

/// `length` bytes of UTF-8 without NUL characters; NULL is allowed if `length` is 0.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(
    pointer: *const c_char,
    length: u32,
    limit: usize,
    name: &str,
) -> Result<&'a str, Failure> {
    // SAFETY: passed on.
    let bytes = unsafe { bytes(pointer.cast(), length, limit, name) }?;
    let text =
        std::str::from_utf8(bytes).map_err(|error| Failure::argument(format!("`{name}` is not UTF-8: {error}")))?;
    if text.contains('\0') {
        return Err(Failure::argument(format!("`{name}` holds a NUL character")));
    }
    Ok(text)
}

/// A guid that is not 0 and fits 63 bits.
pub(crate) fn guid(value: u64, name: &str) -> Result<Guid, Failure> {
    if value == 0 || value > i64::MAX as u64 {
        return Err(Failure::argument(format!("`{name}` is not a guid: {value}")));
    }
    Ok(Guid(value))
}

/// A room for a list: `stride` must hold an element; NULL is allowed if `capacity` is 0.
pub(crate) fn list<T>(out: *mut T, stride: u32, capacity: u32, smallest: usize) -> Result<(), Failure> {
    if capacity == 0 {
        return Ok(());
    }
    not_null(out.cast_const(), "out")?;
    if (stride as usize) < smallest || !(stride as usize).is_multiple_of(align_of::<T>()) {
        return Err(Failure::argument(format!(
            "`stride` is {stride}; it must be a multiple of {} and at least {smallest}, the size of one element",
            align_of::<T>()
        )));
    }
    Ok(())
}

/// Writes `items` at `out`, `stride` bytes apart, as far as `capacity` goes; returns how many there are in all.
///
/// # Safety
/// `out` must be valid for writes of `stride * capacity` bytes; `list` accepted the arguments.
pub(crate) unsafe fn write_list<T>(
    out: *mut T,
    stride: u32,
    capacity: u32,
    items: impl ExactSizeIterator<Item = T>,
) -> i32 {
    let total = items.len();
    for (index, item) in items.take(capacity as usize).enumerate() {
        // SAFETY: index < capacity, and the caller vouches for the room.
        unsafe { out.byte_add(index * stride as usize).write(item) };
    }
    i32::try_from(total).unwrap_or(i32::MAX)
}

/// Writes `text` with a NUL behind it, cut at a character to fit; returns its whole length.
///
/// # Safety
/// `buffer` must be valid for writes of `capacity` bytes.
pub(crate) unsafe fn write_text(text: &[u8], buffer: *mut c_char, capacity: u32) -> Result<i32, Failure> {
    if capacity > 0 {
        if buffer.is_null() {
            return Err(Failure::argument("`buffer` is NULL, but `capacity` is not 0"));
        }
        let text = std::str::from_utf8(text).unwrap_or_default();
        let kept = cut(text, capacity as usize - 1);
        // SAFETY: kept.len() + 1 <= capacity, and the caller vouches for the room.
        unsafe {
            std::ptr::copy_nonoverlapping(kept.as_ptr(), buffer.cast(), kept.len());
            buffer.add(kept.len()).write(0);
        }
    }
    Ok(i32::try_from(text.len()).unwrap_or(i32::MAX))
}

/// As much of `text` as fits `limit` bytes without cutting a character.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
