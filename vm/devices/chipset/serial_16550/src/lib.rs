//! The 16550 UART, and the host side of its serial line.
//!
//! [`Serial16550`] is the device, [`SerialPort`] the line between it and the host, and
//! [`SerialBackend`] the host's end of the line: a file, a socket, a terminal, or a writer of the
//! program. [`SerialPort::connect`] runs the backend on a thread.
//!
//! No byte is lost under load. If the guest writes faster than the host reads, its transmitter is busy;
//! if the host writes faster than the guest reads, there is no room for its input. The exception is a backend
//! that waits for a client: without a client the line keeps the latest
//! [`SerialPort::OUTPUT_CAPACITY`] bytes, so that a guest does not hang.
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

pub use backend::SerialBackend;
pub use backend::SerialError;
pub use connections::SerialConnections;
pub use connections::SerialEnd;
pub use connections::SerialInput;
pub use connections::TcpEnd;
pub use handle::COM_PORTS;
pub use handle::Serial16550Handle;
pub use port::PortStats;
pub use port::SerialPort;
pub use pump::SerialConnection;
pub use uart::Serial16550;
