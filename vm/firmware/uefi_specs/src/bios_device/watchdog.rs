/// The bits of the register [`WATCHDOG_CONFIG`](super::Register::WATCHDOG_CONFIG).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct WatchdogConfig(pub u32);

impl WatchdogConfig {
    /// The watchdog has a count.
    pub const CONFIGURED: u32 = 1 << 0;
    /// The watchdog runs.
    pub const ENABLED: u32 = 1 << 1;
    /// The watchdog runs once.
    pub const ONE_SHOT: u32 = 1 << 4;
    /// The last reset was the watchdog's. Writing 1 clears it.
    pub const BOOT_STATUS: u32 = 1 << 8;
    /// All bits that may be written.
    pub const WRITABLE: u32 = Self::CONFIGURED | Self::ENABLED | Self::ONE_SHOT | Self::BOOT_STATUS;

    /// Whether the watchdog is to run.
    pub const fn runs(self) -> bool {
        self.0 & (Self::CONFIGURED | Self::ENABLED) == Self::CONFIGURED | Self::ENABLED
    }
}
