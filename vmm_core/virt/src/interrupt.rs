use crate::Error;
use std::os::fd::BorrowedFd;

/// A message-signalled interrupt. Destination ids above 255 have their upper 24 bits in bits 63:40 of the address.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Msi {
    /// The address written.
    pub address: u64,
    /// The data written.
    pub data: u32,
}

/// A way for a host event to raise an MSI without the VMM's threads.
pub trait MsiRoute: Send + Sync {
    /// The eventfd that raises the interrupt.
    fn event(&self) -> BorrowedFd<'_>;

    /// Raises `msi` on each event from now on. An event that came while disabled is delivered now.
    fn enable(&self, msi: Msi) -> Result<(), Error>;

    /// Holds events back.
    fn disable(&self) -> Result<(), Error>;
}

/// What a doorbell watches.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum DoorbellAddress {
    /// An I/O port.
    Port(u16),
    /// A guest-physical address.
    Gpa(u64),
}

/// Which writes ring a doorbell.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum DoorbellMatch {
    /// A write of any width and value.
    Any,
    /// A 16-bit write of this value.
    U16(u16),
    /// A 32-bit write of this value.
    U32(u32),
}

/// A registered doorbell: guest writes signal an eventfd without an exit to the VMM. Dropped, it is gone.
pub trait Doorbell: Send + Sync {}
