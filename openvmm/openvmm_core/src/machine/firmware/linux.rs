//! A Linux kernel started directly.

use super::BootError;
use acpi_spec::TableSet;
use guest_memory::GuestMemory;
use guest_memory::MemoryLayout;
use loader::GuestImage;
use loader::ImageFile;
use loader::VpRegisters;
use loader::linux::EntryProtocol;
use loader::linux::LinuxHost;
use loader::linux::LinuxImage;
use loader::linux::LinuxPlan;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::LinuxDirect;

/// A Linux kernel and what it is booted with. Its files stay open, so that a reset boots what the start booted.
pub(crate) struct LinuxBoot(LinuxPlan);

impl LinuxBoot {
    /// Opens the files, and checks that they can be loaded into memory of this layout.
    pub(crate) fn plan(
        config: &LinuxDirect,
        tables: &TableSet,
        layout: &MemoryLayout,
        address_bits: u8,
    ) -> Result<Self, BootError> {
        let image = LinuxImage {
            kernel: ImageFile::open(&config.kernel)?,
            initrd: config.initrd.as_deref().map(ImageFile::open).transpose()?,
            cmdline: &config.cmdline,
            host: Some(LinuxHost::new(layout, address_bits, tables)?),
            protocol: match config.protocol {
                BootProtocol::Auto => EntryProtocol::Auto,
                BootProtocol::Linux64 => EntryProtocol::Linux64,
                BootProtocol::Pvh => EntryProtocol::Pvh,
            },
        };
        Ok(Self(LinuxPlan::new(layout, image)?))
    }

    /// Loads everything into guest memory, and returns the registers that VPs start with.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<VpRegisters, BootError> {
        let mut image = GuestImage::new(memory.map());
        self.0.load(&mut image)?;
        Ok(image.into_registers())
    }
}
