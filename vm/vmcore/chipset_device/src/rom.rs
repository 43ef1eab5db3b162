/// A device's memory that guests may read and execute without an exit, such as flash in array mode.
///
/// While it is shown, reads do not reach the device and writes do, as MMIO. While it is hidden, both do.
pub trait RomMapping: Send + Sync {
    /// Shows the memory to the guest. Shown already, nothing happens.
    fn show(&self) -> std::io::Result<()>;

    /// Hides it, so that reads reach the device too. Hidden already, nothing happens.
    fn hide(&self) -> std::io::Result<()>;
}
