//! Why a call failed: a code for programs and words for people.

use std::borrow::Cow;

use crate::codes::Code;

/// Why a call of the C ABI failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The number that the call returns.
    pub code: Code,
    /// What `lanline_last_error` says. Borrowed on paths that are taken often, so that they do not allocate.
    pub text: Cow<'static, str>,
}

impl Failure {
    /// A failure with words.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// [`Code::InvalidArgument`] with words that name the argument.
    pub fn argument(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, text)
    }

    /// [`Code::Io`] with words that name the file or socket.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Code::Io, format!("{what}: {error}"))
    }
}

/// What a panic said, if it said it in words.
pub fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(words) = panic.downcast_ref::<&'static str>() {
        words
    } else if let Some(words) = panic.downcast_ref::<String>() {
        words
    } else {
        "panic without words"
    }
}
