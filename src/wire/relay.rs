//! TODO relay
