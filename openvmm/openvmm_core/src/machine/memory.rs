//! Guest RAM, from its configuration.

use super::MachineError;
use super::platform::LOW_RAM_END;
use guest_memory::GuestMemory;
use guest_memory::MemoryBacking;
use guest_memory::MemoryLayout;
use guest_memory::MemoryLayoutError;
use guest_memory::MemorySource;
use guest_memory::PageKind;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MachineProfile;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;
use openvmm_defs::config::Sharing;
use openvmm_defs::start::Start;

/// The smallest RAM with which UEFI firmware starts, in bytes. With less OVMF ends without a word.
const MIN_UEFI_RAM: u64 = 64 << 20;

/// The unit of RAM that SMBIOS structures can describe, in bytes.
const SMBIOS_UNIT: u64 = 1 << 20;

/// Why guest RAM cannot be as large as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// It cannot be laid out.
    #[error(transparent)]
    Layout(#[from] MemoryLayoutError),
    /// It is too small for UEFI firmware.
    #[error(
        "guest memory of {size} bytes is less than the minimum for UEFI firmware, {MIN_UEFI_RAM} bytes (64 MiB)"
    )]
    TooSmallForFirmware {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// SMBIOS structures cannot describe it.
    #[error("guest memory of {size} bytes is not a number of MiB, which UEFI firmware needs")]
    NotMebibytes {
        /// The size asked for, in bytes.
        size: u64,
    },
}

/// Where guest RAM lies.
pub(crate) fn layout(
    config: &MemoryConfig,
    load_mode: &LoadMode,
    address_bits: u8,
) -> Result<MemoryLayout, MemorySizeError> {
    let size = config.size;
    let layout = MemoryLayout::new(size, LOW_RAM_END, address_bits)?;
    if load_mode.profile() != MachineProfile::LinuxDirect {
        if size < MIN_UEFI_RAM {
            return Err(MemorySizeError::TooSmallForFirmware { size });
        }
        if !size.is_multiple_of(SMBIOS_UNIT) {
            return Err(MemorySizeError::NotMebibytes { size });
        }
    }
    Ok(layout)
}

/// Whether guest RAM can have its size, and consists of whole pages.
pub(crate) fn check(
    config: &MemoryConfig,
    load_mode: &LoadMode,
    address_bits: u8,
) -> Result<(), MachineError> {
    let layout = layout(config, load_mode, address_bits)?;
    Ok(page_kind(config.pages).check(&layout)?)
}

fn page_kind(pages: HostPages) -> PageKind {
    match pages {
        HostPages::Default => PageKind::Transparent,
        HostPages::Small => PageKind::Small,
        HostPages::Huge => PageKind::Huge2M,
        HostPages::Huge1G => PageKind::Huge1G,
    }
}

/// What the memory is taken from.
fn backing(config: &MemoryConfig) -> MemoryBacking {
    let source = match (&config.file, config.sharing) {
        (Some(path), _) => MemorySource::File(path.clone()),
        (None, Some(Sharing::Shared)) => MemorySource::Shared,
        (None, None) => MemorySource::Anonymous,
    };
    MemoryBacking {
        source,
        pages: page_kind(config.pages),
        prealloc: config.population == Population::Prealloc,
    }
}

/// Takes the memory from the host: as configured, or the RAM of a saved machine.
pub(crate) fn allocate(
    config: &MemoryConfig,
    start: &Start,
    layout: MemoryLayout,
) -> Result<GuestMemory, MachineError> {
    let backing = match start {
        Start::Restore(saved) => saved.memory.as_ref().map(|path| MemoryBacking {
            source: MemorySource::Saved(path.clone()),
            ..MemoryBacking::default()
        }),
        Start::Boot(_) => None,
    };
    let backing = backing.unwrap_or_else(|| self::backing(config));
    Ok(GuestMemory::new(layout, &backing)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_from_the_host_as_configured() {
        for (population, prealloc) in [(Population::OnDemand, false), (Population::Prealloc, true)]
        {
            for (pages, kind) in [
                (HostPages::Default, PageKind::Transparent),
                (HostPages::Small, PageKind::Small),
                (HostPages::Huge, PageKind::Huge2M),
                (HostPages::Huge1G, PageKind::Huge1G),
            ] {
                let backing = backing(&MemoryConfig {
                    size: 64 << 20,
                    file: None,
                    pages,
                    population,
                    sharing: None,
                });
                assert_eq!((backing.pages, backing.prealloc), (kind, prealloc));
            }
        }
    }
}
