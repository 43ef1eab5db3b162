//! Flash.
