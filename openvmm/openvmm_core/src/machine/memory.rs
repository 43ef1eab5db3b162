//! Guest RAM, from its configuration.

use super::MachineError;
use guest_memory::GuestMemory;
use guest_memory::MemoryBacking;
use guest_memory::MemoryLayout;
use guest_memory::MemorySource;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;

/// Takes the memory from the host.
pub(crate) fn allocate(
    config: &MemoryConfig,
    layout: MemoryLayout,
) -> Result<GuestMemory, MachineError> {
    let source = match (&config.file, config.pages) {
        (Some(path), _) => MemorySource::File(path.clone()),
        (None, HostPages::Huge) => MemorySource::HugePages,
        (None, HostPages::Default) => MemorySource::Anonymous,
    };
    let backing = MemoryBacking {
        source,
        prealloc: config.population == Population::Prealloc,
    };
    Ok(GuestMemory::new(layout, &backing)?)
}
