//! Tests of the event queue: bounds, order, recycling, allocations.
