//! Drives the device with a script of arbitrary operations, for fuzzing and tests.

use crate::FirmwareReportSink;
use crate::FirmwareUefi;
use crate::LogLevel;
use crate::Platform;
use chipset::rtc::WallClock;
use chipset_device::ChipsetDevice as _;
use chipset_device::DeviceWaker;
use chipset_device::LineInterrupt;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use chipset_device::exercise::Script;
use chipset_device::exercise::exercise;
use guest_memory::GuestMemory;
use std::sync::Arc;
use std::time::Duration;
use uefi_nvram::MemoryNvram;
use uefi_nvram::SecureBoot;
use uefi_nvram::VariableServices;
use uefi_specs::bios_device::ADDRESS_PORT;
use uefi_specs::bios_device::DATA_PORT;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vmtime::VmClock;

/// A target that nobody hears.
struct NoInterrupts;

impl MsiTarget for NoInterrupts {
    fn signal(&self, _message: MsiMessage) {}

    fn new_vector(&self) -> std::io::Result<Box<dyn MsiVector>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// The registers that take an address, and one that does not exist.
const REGISTERS: [u32; 9] = [0x24, 0x26, 0x2b, 0x2c, 0x30, 0x34, 0x35, 0x36, 0x99];

/// Where structures are: in the middle of a page, across pages, at the end of RAM, beyond it.
const PLACES: [u32; 4] = [0x1000, 0x1ff8, 0, u32::MAX - 20];

/// A device whose guest makes requests of the script, in `memory`.
pub fn firmware_uefi(memory: &GuestMemory, script: &[u8]) {
    let (clock, time) = VmClock::manual();
    clock.start();
    let secure_boot = SecureBoot::default();
    let Ok(variables) = VariableServices::new(Box::new(MemoryNvram), None, &secure_boot) else {
        unreachable!("an empty store has room");
    };
    let platform = Platform {
        memory: memory.clone(),
        clock,
        wall: WallClock::new(|| 1_700_000_000_000_000_000),
        generation_event: LineInterrupt::detached(),
        interrupts: Arc::new(NoInterrupts),
        reports: FirmwareReportSink::none(),
        waker: DeviceWaker::default(),
    };
    let mut device = FirmwareUefi::new(platform, variables, [7; 16], LogLevel::Full);
    let control = device.control();
    for chunk in script.chunks(200) {
        let (requests, accesses) = chunk.split_at(chunk.len() / 2);
        request(&mut device, memory, requests);
        exercise(&mut device, accesses, &mut |byte| match byte {
            0..0x80 => time.advance(Duration::from_secs(u64::from(byte))),
            byte => control.change_generation_id([byte; 16]),
        });
    }
}

/// Puts what the script says into memory, and passes its address to a register.
fn request(device: &mut FirmwareUefi, memory: &GuestMemory, script: &[u8]) {
    let mut script = Script(script);
    let register = script.choose(&REGISTERS);
    let place = script.choose(&PLACES);
    let end = memory.layout().ram().first().map_or(0, |ram| ram.end);
    let gpa = match place {
        0 => u32::try_from(end - 1 - u64::from(script.byte())).unwrap_or(0),
        place => place,
    };
    let command = u32::from(script.byte() % 8);
    let content = [&command.to_le_bytes()[..], script.0].concat();
    // What does not fit is not there.
    let _ = memory.map().write(&content, GuestAddress(gpa.into()));
    let mut write = |port, value: u32| {
        let _ = device.write_port(port, &value.to_le_bytes());
    };
    write(ADDRESS_PORT, register);
    write(DATA_PORT, gpa);
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
        for seed in 0..100 {
            firmware_uefi(&memory, &pseudo_random_script(seed, 4_000));
        }
    }
}
