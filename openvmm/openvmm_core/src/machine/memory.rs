//! Guest RAM, from its configuration.

use super::MachineError;
use guest_memory::GuestMemory;
use guest_memory::MemoryLayout;
use openvmm_defs::config::MemoryConfig;

/// Takes the memory from the host.
pub(crate) fn allocate(
    config: &MemoryConfig,
    address_bits: u8,
) -> Result<GuestMemory, MachineError> {
    let layout = MemoryLayout::new(
        config.size,
        MemoryLayout::DEFAULT_LOW_MMIO_START,
        address_bits,
    )?;
    Ok(GuestMemory::anonymous(layout)?)
}
