//! Typed message passing between tasks, and the numbered-field encoding of messages and saved state.
#![forbid(unsafe_code)]

pub mod payload;
pub mod saved_state;
mod wellformed;
