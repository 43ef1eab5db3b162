//! Makes arbitrary requests of a UEFI device.
#![no_main]

use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use std::sync::LazyLock;

static MEMORY: LazyLock<GuestMemory> = LazyLock::new(|| {
    let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
    let layout = MemoryLayout::new(MIN_RAM, gap, 46).expect("a small layout");
    GuestMemory::anonymous(layout).expect("a little memory")
});

libfuzzer_sys::fuzz_target!(|script: &[u8]| firmware_uefi::exercise::firmware_uefi(
    &MEMORY, script
));
