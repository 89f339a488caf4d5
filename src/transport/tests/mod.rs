//! Two transports in virtual time.

mod channels;
mod handshake;
mod harness;
mod latency;
