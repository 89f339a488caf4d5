//! Two transports in virtual time.

mod handshake;
mod harness;
