//! bzImage files: the setup header, and where the kernel goes.

use super::KernelError;
use super::kernel::Entry;
use super::kernel::InitrdReach;
use super::kernel::Kernel;
use super::kernel::KernelSegment;
use super::layout::HIGH_RAM;
use linux_loader::bootparam;
use linux_loader::bootparam::setup_header;
use std::ops::Range;
use vm_memory::ByteValued;

const SECTOR: u64 = 512;
/// Where the setup header starts, in the file and in the boot parameters.
const HEADER_START: usize = 0x1f1;
/// The header ends at this offset plus the value of the byte before.
const HEADER_LEN_BASE: usize = 0x202;
/// The header of protocol 2.12 ends after `handover_offset`.
const MIN_HEADER_END: u64 = 0x268;
/// The offset of the next field in the boot parameters.
const MAX_HEADER_END: u64 = 0x290;
/// The first protocol with a 64-bit entry.
const MIN_PROTOCOL: u16 = 0x020c;
/// The 64-bit entry's offset in the code.
const ENTRY_64: u64 = 0x200;
/// The number of setup sectors that 0 stands for.
const DEFAULT_SETUP_SECTS: u8 = 4;
/// The limit of the command line that 0 stands for.
const DEFAULT_CMDLINE_SIZE: u32 = 255;
const MAX_ALIGNMENT: u64 = 1 << 30;

/// Checks the bzImage of `len` bytes that starts with `head`, and decides where in `ram` it is loaded.
pub(super) fn parse(len: u64, head: &[u8], ram: &Range<u64>) -> Result<Kernel, KernelError> {
    let header = read_header(len, head)?;
    check_protocol(&header)?;
    let code = code(len, &header)?;
    let code_len = code.end - code.start;
    let load = load_address(&header)?;
    let footprint = footprint(&header, load, code_len, ram)?;

    let reach = if header.xloadflags & bootparam::XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
        InitrdReach::Anywhere
    } else {
        InitrdReach::Below(u64::from(header.initrd_addr_max) + 1)
    };
    let cmdline_size = match header.cmdline_size {
        0 => DEFAULT_CMDLINE_SIZE,
        size => size,
    };
    Ok(Kernel {
        segments: vec![KernelSegment {
            file_offset: code.start,
            file_len: code_len,
            gpa: load,
            mem_len: code_len,
        }],
        footprint,
        entry: Entry::Linux64(load + ENTRY_64),
        setup_header: Some(header),
        initrd_reach: reach,
        cmdline_limit: cmdline_size as usize,
    })
}

/// Reads the setup header, of the length that it states.
fn read_header(len: u64, head: &[u8]) -> Result<setup_header, KernelError> {
    let truncated = |end| KernelError::Truncated {
        part: "the setup header",
        end,
        len,
    };
    let tail = head
        .get(HEADER_LEN_BASE - 1)
        .ok_or_else(|| truncated(HEADER_LEN_BASE as u64))?;
    let end = HEADER_LEN_BASE + usize::from(*tail);
    let bytes = head
        .get(HEADER_START..end)
        .ok_or_else(|| truncated(end as u64))?;
    let mut header = setup_header::default();
    let known = bytes.len().min(size_of::<setup_header>());
    header.as_mut_slice()[..known].copy_from_slice(&bytes[..known]);
    let end = end as u64;
    // The header of an old protocol is shorter; check_protocol refuses it.
    if end > MAX_HEADER_END || header.version >= MIN_PROTOCOL && end < MIN_HEADER_END {
        return Err(KernelError::SetupHeader {
            end,
            min: MIN_HEADER_END,
            max: MAX_HEADER_END,
        });
    }
    Ok(header)
}

fn check_protocol(header: &setup_header) -> Result<(), KernelError> {
    if header.version < MIN_PROTOCOL {
        Err(KernelError::OldProtocol {
            version: header.version,
        })
    } else if header.loadflags & bootparam::LOADED_HIGH == 0 {
        Err(KernelError::NotLoadedHigh)
    } else if header.xloadflags & bootparam::XLF_KERNEL_64 == 0 {
        Err(KernelError::No64BitEntry {
            xloadflags: header.xloadflags,
        })
    } else {
        Ok(())
    }
}

/// The range of the file that is loaded as code. A signature may follow it.
fn code(len: u64, header: &setup_header) -> Result<Range<u64>, KernelError> {
    let truncated = |part, end| KernelError::Truncated { part, end, len };
    let sectors = match header.setup_sects {
        0 => DEFAULT_SETUP_SECTS,
        n => n,
    };
    let start = (u64::from(sectors) + 1) * SECTOR;
    if start > len {
        return Err(truncated("the setup code", start));
    }
    let end = match header.syssize {
        0 => len,
        paragraphs => start + u64::from(paragraphs) * 16,
    };
    if end > len {
        return Err(truncated("the kernel's code", end));
    }
    if end - start <= ENTRY_64 {
        return Err(truncated(
            "the kernel's code up to its 64-bit entry",
            start + ENTRY_64 + 1,
        ));
    }
    let offset = u64::from(header.payload_offset);
    let length = u64::from(header.payload_length);
    if offset + length > end - start {
        return Err(KernelError::Payload {
            offset,
            length,
            code: end - start,
        });
    }
    Ok(start..end)
}

/// The address that the code is loaded at: the kernel's preferred one, or else the lowest possible.
fn load_address(header: &setup_header) -> Result<u64, KernelError> {
    if header.pref_address >= HIGH_RAM {
        return Ok(header.pref_address);
    }
    if header.relocatable_kernel == 0 {
        return Err(KernelError::TooLow {
            start: header.pref_address,
        });
    }
    Ok(HIGH_RAM.next_multiple_of(alignment(header)?))
}

fn alignment(header: &setup_header) -> Result<u64, KernelError> {
    let alignment = u64::from(header.kernel_alignment);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(KernelError::Alignment { alignment });
    }
    Ok(alignment)
}

/// The memory that the kernel uses from its first instruction until it reads the memory map: it decompresses
/// itself to the first address from `load` that has its alignment.
fn footprint(
    header: &setup_header,
    load: u64,
    code_len: u64,
    ram: &Range<u64>,
) -> Result<Range<u64>, KernelError> {
    let too_large = |size| KernelError::TooLarge {
        start: load,
        size,
        ram_end: ram.end,
    };
    let run = if header.relocatable_kernel == 0 {
        load
    } else {
        load.checked_next_multiple_of(alignment(header)?)
            .ok_or_else(|| too_large(u64::MAX))?
    };
    let size = (run - load)
        .saturating_add(u64::from(header.init_size))
        .max(code_len);
    match load.checked_add(size) {
        Some(end) if end <= ram.end => Ok(load..end),
        _ => Err(too_large(size)),
    }
}
