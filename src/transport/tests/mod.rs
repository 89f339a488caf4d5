//! Two transports in virtual time.

mod channels;
mod flood;
mod handshake;
mod harness;
mod latency;
