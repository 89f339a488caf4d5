//! Lanline connects a game's players directly, across whatever routers they sit behind.
//!
//! A game polls this library once a frame through its C ABI; one server program, `lanline serve`,
//! introduces players to each other. This page is the map.
//!
//! | folder | what lives there | IO |
//! |---|---|---|
//! | [`engine`] | the contract every engine keeps: datagrams, commands and time in; transmits, events and the next deadline out | no |
//! | [`codes`] | numbers and names that games see: results, event types, path kinds, send modes | no |
//! | [`scope`] | what kind of network an address belongs to | no |
//! | [`wire`] | codecs, one file a format, its doc comment the specification | no |
//! | [`transport`] | QUIC over synthetic addresses: identity, channels, congestion | no |
//! | [`relay`] | the forwarder: passes datagrams between two sides by ticket | no |
//! | [`peer`] | the player's engine: server session, punching, paths, connections, mesh | no |
//! | `server` | the server's engine: registration, introductions, STUN, limits (feature `program`) | no |
//! | [`shell`] | tokio, sockets, the clock, OS randomness; runs the engines | yes |
//! | [`ffi`] | the C ABI: converts, checks, calls | no |
//! | `lab` | a virtual internet in virtual time (feature `lab`) | no |
//!
//! `unsafe` appears in `ffi` and `shell` only.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod codes;
pub mod engine;
pub mod peer;
pub mod relay;
pub mod scope;
pub mod transport;
pub mod wire;

#[cfg(feature = "program")]
pub mod server;

#[cfg(feature = "lab")]
pub mod lab;

#[allow(unsafe_code)]
pub mod ffi;
#[allow(unsafe_code)]
pub mod shell;
