//! Checks of arguments through the C ABI.
