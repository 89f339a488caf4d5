//! The only place with tokio, sockets, the clock and OS randomness; runs the engines.

pub mod udp;
