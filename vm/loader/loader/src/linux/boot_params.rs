//! The boot parameters ("zero page") of the 64-bit boot protocol.

use super::kernel::Kernel;
use super::layout;
use super::layout::MapEntry;
use linux_loader::bootparam::boot_e820_entry;
use linux_loader::bootparam::boot_params;
use linux_loader::bootparam::setup_header;
use std::ops::Range;
use vm_memory::ByteValued;

/// The ID of a boot loader that has none assigned.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// The first protocol whose boot parameters hold the address of the RSDP.
const RSDP_PROTOCOL: u16 = 0x020e;
/// The least alignment of a vmlinux, which has no setup header to state it.
const ELF_ALIGNMENT: u32 = 0x10_0000;

/// The page for [`layout::BOOT_PARAMS`]. `map` has no more entries than the page holds.
pub(super) fn boot_params(
    kernel: &Kernel,
    map: &[MapEntry],
    initrd: Option<&Range<u64>>,
) -> Vec<u8> {
    let mut params = boot_params::default();
    let mut header = kernel.setup_header.unwrap_or(setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        kernel_alignment: ELF_ALIGNMENT,
        ..Default::default()
    });
    // A vmlinux does not state its protocol; one that is too old ignores the field.
    if kernel.setup_header.is_none() || header.version >= RSDP_PROTOCOL {
        params.acpi_rsdp_addr = layout::RSDP;
    }
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    // The file's value would point at memory that holds no setup data.
    header.setup_data = 0;
    let (image, size) = initrd.map_or((0, 0), |initrd| (initrd.start, initrd.end - initrd.start));
    header.ramdisk_image = image as u32;
    header.ramdisk_size = size as u32;
    params.ext_ramdisk_image = (image >> 32) as u32;
    params.ext_ramdisk_size = (size >> 32) as u32;
    params.hdr = header;
    for (i, entry) in map.iter().enumerate() {
        params.e820_table[i] = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            r#type: entry.kind as u32,
        };
    }
    params.e820_entries = map.len() as u8;
    params.as_slice().to_vec()
}
