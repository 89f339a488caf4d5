//! TODO classify
