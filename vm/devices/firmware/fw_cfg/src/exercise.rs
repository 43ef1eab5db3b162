//! Drives the device with a script of arbitrary operations, for fuzzing and tests.

use crate::FwCfg;
use crate::FwCfgBuilder;
use crate::ItemContent;
use chipset_device::ChipsetDevice as _;
use chipset_device::exercise::exercise;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// The length in bytes of the writable file.
const WRITABLE: usize = 24;

/// Guest RAM in bytes.
const RAM: u64 = MIN_RAM;

fn device(memory: GuestMemory) -> FwCfg {
    let kernel = ItemContent::from([&b"MZ"[..], &[7; 5000]].concat());
    FwCfgBuilder::default()
        .boot_cpu_count(4)
        .and_then(|builder| builder.kernel(&kernel, "console=ttyS0"))
        .and_then(|builder| builder.add_file("etc/smbios/smbios-tables", vec![1; 300]))
        .and_then(|builder| {
            builder.add_writable_file("etc/address", vec![0; WRITABLE], |bytes| {
                assert_eq!(bytes.len(), WRITABLE, "the length changed");
            })
        })
        .and_then(|builder| {
            let mut made = 0;
            builder.add_made_file("etc/acpi/tables", vec![0; 300], move || {
                made += 1;
                (made % 3 != 0).then(|| vec![made; 299 + usize::from(made % 2)])
            })
        })
        .and_then(|builder| builder.build(memory))
        .expect("fixed items")
}

/// A device whose guest also starts DMA with descriptors of the script.
pub fn fw_cfg(script: &[u8]) {
    let layout = MemoryLayout::new(RAM, 3 << 30, 40).expect("a fixed layout");
    let memory = GuestMemory::anonymous(layout).expect("the host has memory");
    let mut device = device(memory.clone());
    let (ports, descriptors) = script.split_at(script.len() / 2);
    exercise(&mut device, ports, &mut |_| ());
    for descriptor in descriptors.chunks_exact(12) {
        dma(&mut device, &memory, descriptor);
    }
}

/// Starts a descriptor that is derived from 12 bytes of the script.
fn dma(device: &mut FwCfg, memory: &GuestMemory, script: &[u8]) {
    const PLACES: [u64; 4] = [0x1000, RAM - 8, RAM, u64::MAX - 7];
    let byte = |at: usize| u64::from(script[at]);
    let control = (((byte(0) % 0x40) << 16) | (byte(1) % 0x20)) as u32;
    let len = (byte(2) << (byte(3) % 25)) as u32;
    let buffer = PLACES[(byte(4) % 4) as usize].wrapping_add(byte(5) << (byte(6) % 40));
    let at = PLACES[(byte(7) % 4) as usize].wrapping_add(byte(8) << (byte(9) % 40));
    let bytes = [
        control.to_be_bytes(),
        len.to_be_bytes(),
        ((buffer >> 32) as u32).to_be_bytes(),
        (buffer as u32).to_be_bytes(),
    ]
    .concat();
    let there = memory.map().write_slice(&bytes, GuestAddress(at)).is_ok();
    let _ = device.write_port(0x514, &((at >> 32) as u32).to_be_bytes());
    let _ = device.write_port(0x518, &(at as u32).to_be_bytes());
    if there {
        let mut control = [0; 4];
        // The status of the transfer, unless the transfer itself may have overwritten it.
        if memory
            .map()
            .read_slice(&mut control, GuestAddress(at))
            .is_ok()
            && buffer.abs_diff(at) > 1 << 32
        {
            assert!(
                u32::from_be_bytes(control) <= 1,
                "the descriptor is not completed"
            );
        }
    }
    drop(device.inspect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..100 {
            fw_cfg(&pseudo_random_script(seed, 2_000));
        }
    }
}
