//! Reading and writing of fields.

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the format needs.
    Truncated,
    /// A field holds a value that the format does not allow.
    Invalid(&'static str),
    /// A length or count above its bound.
    TooLong(&'static str),
    /// A type number that this version does not know (to be ignored).
    UnknownType(u8),
    /// The authentication does not match.
    Unauthenticated,
}

/// Reads fields from bytes.
pub struct Reader<'a> {
    #[allow(dead_code)]
    rest: &'a [u8],
}

/// Writes fields.
pub struct Writer<'a> {
    #[allow(dead_code)]
    out: &'a mut Vec<u8>,
}
