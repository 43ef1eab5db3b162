use crate::Error;
use chipset_device::MsiMessage;
use std::os::fd::BorrowedFd;

/// A way for a host event to raise an MSI without the VMM's threads.
pub trait MsiRoute: Send + Sync {
    /// The eventfd that raises the interrupt.
    fn event(&self) -> BorrowedFd<'_>;

    /// Raises `msi` on each event from now on. An event that came while disabled is delivered now.
    fn enable(&self, msi: MsiMessage) -> Result<(), Error>;

    /// Holds events back.
    fn disable(&self) -> Result<(), Error>;
}
