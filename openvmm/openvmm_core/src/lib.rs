//! The VM worker: builds a VM from its configuration and runs it.
#![forbid(unsafe_code)]
