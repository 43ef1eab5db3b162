/// Device memory that guests can read and execute without an exit, such as flash in array mode.
///
/// While it is mapped, only writes reach the device, as MMIO. While it is unmapped, reads do too.
pub trait RomMapping: Send + Sync {
    /// Maps the memory into the guest. No effect if it is mapped.
    fn show(&self) -> std::io::Result<()>;

    /// Unmaps it, so that reads reach the device. No effect if it is unmapped.
    fn hide(&self) -> std::io::Result<()>;
}
