//! Tests of the node in the lab.
