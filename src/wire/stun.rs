//! TODO stun
