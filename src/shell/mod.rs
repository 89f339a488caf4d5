//! The only place with tokio, sockets, the clock and OS randomness; runs the engines.

#[cfg(feature = "program")]
pub mod server;
pub mod udp;
