//! Puts the device through the lives that scripts describe, for fuzzing and tests.

use crate::GENERATION_ID_LEN;
use crate::GenerationId;
use chipset_device::LineInterrupt;
use chipset_device::exercise::exercise;
use guest_memory::GuestMemory;

/// A device that is told addresses in and outside of `memory`, whose ID changes, and which is saved and
/// restored.
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
    use crate::device_test::memory;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives() {
        let memory = memory();
        for seed in 0..200 {
            generation_id(&memory, &pseudo_random_script(seed, 1_500));
        }
    }
}
