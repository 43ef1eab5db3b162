use std::os::fd::BorrowedFd;

/// A message-signalled interrupt (Intel SDM volume 3, 11.11), as a function's MSI or MSI-X registers or a pin of an I/O
/// APIC give it. Destination ids above 255 have their upper 24 bits in bits 63:40 of the address.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsiMessage {
    /// The address to write to, in the range of the local APICs.
    pub address: u64,
    /// The data to write: vector, delivery mode and trigger mode.
    pub data: u32,
}

/// Where message-signalled interrupts go.
pub trait MsiTarget: Send + Sync {
    /// Raises `message` now. A message that cannot be delivered is lost, as on a bus.
    fn signal(&self, message: MsiMessage);

    /// A new way from an eventfd to a message, disabled at first.
    fn new_vector(&self) -> std::io::Result<Box<dyn MsiVector>>;
}

/// A way from an eventfd to a message, that needs no thread of the VMM.
pub trait MsiVector: Send + Sync {
    /// The eventfd that raises the interrupt when it is written to.
    fn event(&self) -> BorrowedFd<'_>;

    /// Raises `message` on each event from now on. An event that came while disabled is delivered now. If the message
    /// cannot be delivered, that is no error: its events are lost.
    fn enable(&self, message: MsiMessage) -> std::io::Result<()>;

    /// Holds events back. They stay in the eventfd, which is readable as long as there are any.
    fn disable(&self) -> std::io::Result<()>;
}
