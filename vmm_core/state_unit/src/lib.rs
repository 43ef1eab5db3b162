//! Starts, stops, resets, saves and restores the stateful parts of a VM in dependency order.
#![forbid(unsafe_code)]
