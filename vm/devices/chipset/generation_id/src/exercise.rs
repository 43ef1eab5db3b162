//! Drives the device with a script of arbitrary operations, for fuzzing and tests.

use crate::GENERATION_ID_LEN;
use crate::GenerationId;
use chipset_device::LineInterrupt;
use chipset_device::exercise::exercise;
use guest_memory::GuestMemory;

/// A device whose ID changes, with addresses inside and outside of `memory`.
pub fn generation_id(memory: &GuestMemory, script: &[u8]) {
    let id = [7; GENERATION_ID_LEN];
    let mut device = GenerationId::new(id, memory.clone(), LineInterrupt::detached());
    for chunk in script.chunks(24) {
        exercise(&mut device, chunk, &mut |_| ());
        if let Some((id, rest)) = chunk.split_first_chunk() {
            if let Some(address) = rest.first_chunk() {
                device.set_address(u64::from_le_bytes(*address) >> (id[0] & 63));
            }
            device.change(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;
    use guest_memory::MIN_RAM;
    use guest_memory::MemoryLayout;

    #[test]
    fn survives_random_scripts() {
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        let layout = MemoryLayout::new(MIN_RAM, gap, 46).unwrap();
        let memory = GuestMemory::anonymous(layout).unwrap();
        for seed in 0..200 {
            generation_id(&memory, &pseudo_random_script(seed, 1_500));
        }
    }
}
