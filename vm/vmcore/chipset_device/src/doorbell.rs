use std::os::fd::BorrowedFd;

/// The address a doorbell watches.
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

/// A registered doorbell. Dropped, it is gone.
pub trait Doorbell: Send + Sync {}

/// Makes guest writes signal eventfds, without an exit to the VMM where the hypervisor can.
///
/// A write that matches a doorbell does not reach the device. One that comes while the doorbell is being
/// registered or dropped may reach it as an ordinary write, so devices handle both.
pub trait DoorbellTarget: Send + Sync {
    /// Makes guest writes at `address` signal `event`.
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> std::io::Result<Box<dyn Doorbell>>;
}
