//! Places a guest's first code in memory: Linux kernels now, firmware images next.
#![forbid(unsafe_code)]
