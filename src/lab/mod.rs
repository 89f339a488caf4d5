//! A virtual internet in virtual time.
