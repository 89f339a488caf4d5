//! News of the machine's addresses, where nodes look by themselves instead of being told.

use std::io;

/// What the system says about addresses: nothing.
pub struct Changes;

impl Changes {
    /// Not here.
    pub fn subscribe() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never returns.
    pub async fn next(&self) -> io::Result<()> {
        std::future::pending().await
    }
}
