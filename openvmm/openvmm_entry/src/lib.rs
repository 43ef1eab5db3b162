//! The command line and the interactive console of openvmm.
#![forbid(unsafe_code)]
pub fn main() {}
