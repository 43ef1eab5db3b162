//! What a VM is: the configuration the worker builds it from.
#![forbid(unsafe_code)]
