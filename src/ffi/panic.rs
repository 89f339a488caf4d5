//! The one wrapper of all exports: panics stop here, failures become a code and the thread's last error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error;
use crate::codes::Code;
use crate::shell::failure::{Failure, words_of};

/// Runs the body of an export. A panic becomes `INTERNAL`; never unwinds.
pub(crate) fn guard(body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => {
            error::remember(&failure.text);
            failure.code.number()
        }
        Err(panic) => {
            error::remember_parts(&["a fault inside the library, please report it: ", words_of(&*panic)]);
            Code::Internal.number()
        }
    }
}

/// As [`guard`], for exports that return something else than a result; `fallback` is returned upon a panic.
pub(crate) fn guard_value<T: Copy>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}
