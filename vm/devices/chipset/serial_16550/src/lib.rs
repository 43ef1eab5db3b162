//! The 16550 UART, and the host side of the line it drives.
//!
//! [`Serial16550`] is the device in the guest, [`SerialPort`] the line between it and the host, and
//! [`SerialBackend`] what the host's end of the line is: a file, a socket, a terminal, a program's own
//! callback. [`SerialPort::connect`] runs the backend on a thread.
//!
//! No byte is lost under load. A guest that writes faster than the host reads finds its transmitter busy;
//! a host that writes faster than the guest reads finds no room. The one exception is a backend that
//! waits for somebody to connect: while nobody is there the line keeps the most recent
//! [`SerialPort::OUTPUT_CAPACITY`] bytes, so that a guest does not hang on an absent reader.
#![forbid(unsafe_code)]

mod backend;
mod connections;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub mod exercise;
mod handle;
mod port;
mod pump;
mod registers;
mod uart;

pub use backend::BackendError;
pub use backend::SerialBackend;
pub use connections::SerialConnections;
pub use connections::SerialEnd;
pub use connections::SerialError;
pub use handle::COM_PORTS;
pub use handle::Serial16550Handle;
pub use port::PortStats;
pub use port::SerialPort;
pub use pump::ConnectError;
pub use pump::SerialConnection;
pub use uart::Serial16550;

#[cfg(test)]
mod pump_test;
#[cfg(test)]
mod uart_test;
