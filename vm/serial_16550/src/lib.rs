//! The 16550 UART, and the host side of the line it drives.
#![forbid(unsafe_code)]
