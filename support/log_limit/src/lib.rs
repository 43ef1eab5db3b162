//! Limits how many log lines an untrusted source can cause, and counts those that are suppressed.
#![forbid(unsafe_code)]

mod limit;

pub use limit::LogLimit;
