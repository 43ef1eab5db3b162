use std::os::fd::BorrowedFd;

/// A message-signalled interrupt, as a function's MSI or MSI-X registers give it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsiMessage {
    /// The address to write to.
    pub address: u64,
    /// The data to write.
    pub data: u32,
}

/// Where message-signalled interrupts go.
pub trait MsiTarget: Send + Sync {
    /// Raises `message` now. A message that cannot be delivered is logged and lost, as on a bus.
    fn signal(&self, message: MsiMessage);

    /// A new way from an eventfd to a message, disabled at first.
    fn new_vector(&self) -> std::io::Result<Box<dyn MsiVector>>;
}

/// A way from an eventfd to a message, that needs no thread of the VMM.
pub trait MsiVector: Send + Sync {
    /// The eventfd that raises the interrupt when it is written to.
    fn event(&self) -> BorrowedFd<'_>;

    /// Raises `message` on each event from now on. An event that came while disabled is delivered now.
    fn enable(&self, message: MsiMessage) -> std::io::Result<()>;

    /// Holds events back. They stay in the eventfd, which is readable as long as there are any.
    fn disable(&self) -> std::io::Result<()>;
}
