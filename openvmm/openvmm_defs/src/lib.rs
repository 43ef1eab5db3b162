//! What a VM is and what can be asked of it: the contract between the worker and its front ends.
#![forbid(unsafe_code)]

pub mod config;
pub mod devices;
pub mod event;
pub mod request;
pub mod start;
