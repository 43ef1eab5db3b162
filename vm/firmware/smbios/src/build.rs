//! The structures of a description, one function for each type (DSP0134, chapter 7), and the entry point (5.2.2).

use crate::description::BaseboardInformation;
use crate::description::BiosInformation;
use crate::description::Chassis;
use crate::description::Description;
use crate::description::ProcessorInformation;
use crate::description::SystemInformation;
use crate::error::SmbiosError;
use crate::structure::Structure;
use std::ops::Range;

/// The fw_cfg file for [`Smbios::anchor`].
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";

/// The fw_cfg file for [`Smbios::tables`].
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

/// The version of the specification.
const VERSION: (u8, u8) = (3, 0);

/// Handles. Each kind has its range, so that adding one structure does not change the handles of other kinds.
mod handle {
    pub(super) const BIOS: u16 = 0x0000;
    pub(super) const SYSTEM: u16 = 0x0100;
    pub(super) const BASEBOARD: u16 = 0x0200;
    pub(super) const CHASSIS: u16 = 0x0300;
    pub(super) const PROCESSOR: u16 = 0x0400;
    pub(super) const MEMORY_ARRAY: u16 = 0x1000;
    pub(super) const MEMORY_DEVICE: u16 = 0x1100;
    pub(super) const MEMORY_RANGE: u16 = 0x1300;
    pub(super) const BOOT: u16 = 0x2000;
    pub(super) const END: u16 = 0x7f00;

    /// No handle: there is nothing to refer to.
    pub(super) const NONE: u16 = 0xffff;
    /// No handle: errors are not reported.
    pub(super) const NO_ERRORS: u16 = 0xfffe;
}

const MAX_PROCESSORS: usize = (handle::MEMORY_ARRAY - handle::PROCESSOR) as usize;
const MAX_MEMORY_DEVICES: u64 = (handle::MEMORY_RANGE - handle::MEMORY_DEVICE) as u64;
const MAX_MEMORY_RANGES: usize = (handle::BOOT - handle::MEMORY_RANGE) as usize;

const MIB: u64 = 1 << 20;
/// The size of a memory device; doubled until there are enough handles.
const MEMORY_DEVICE_SIZE: u64 = 16 << 30;

/// Values of enumerated fields that occur in several types.
const OTHER: u8 = 1;
const UNKNOWN: u8 = 2;
const SAFE: u8 = 3;

/// The SMBIOS of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smbios {
    /// The 64-bit entry point. The address of the structures in it is 0: the firmware that installs them fills in
    /// the address and the checksum.
    pub anchor: Vec<u8>,
    /// The structures.
    pub tables: Vec<u8>,
}

impl Description {
    /// Builds the structures.
    pub fn build(&self) -> Result<Smbios, SmbiosError> {
        let mut tables = Vec::new();
        bios(&mut tables, &self.bios)?;
        system(&mut tables, &self.system)?;
        baseboard(&mut tables, &self.baseboard)?;
        chassis(&mut tables, &self.chassis)?;
        if !(1..=MAX_PROCESSORS).contains(&self.processors.len()) {
            return Err(SmbiosError::Processors {
                count: self.processors.len(),
                limit: MAX_PROCESSORS,
            });
        }
        for (socket, p) in (0..).zip(&self.processors) {
            processor(&mut tables, socket, p)?;
        }
        memory(&mut tables, &self.memory)?;
        boot(&mut tables);
        Structure::new(127, handle::END).finish(&mut tables);
        Ok(Smbios {
            anchor: anchor(tables.len()),
            tables,
        })
    }
}

fn bios(out: &mut Vec<u8>, bios: &BiosInformation) -> Result<(), SmbiosError> {
    /// BIOS characteristics are not supported.
    const NO_CHARACTERISTICS: u64 = 1 << 3;
    const UEFI: u8 = 1 << 3;
    const VIRTUAL_MACHINE: u8 = 1 << 4;

    let mut s = Structure::new(0, handle::BIOS);
    s.text("firmware vendor", &bios.vendor)?;
    s.text("firmware version", &bios.version)?;
    // No starting segment below 1 MiB.
    s.word(0);
    s.text("firmware release date", &bios.release_date)?;
    // ROM size, in units of 64 KiB beyond the first.
    s.byte(0);
    s.qword(NO_CHARACTERISTICS);
    s.bytes(&[0, UEFI | VIRTUAL_MACHINE]);
    let (major, minor) = bios.release;
    s.bytes(&[major, minor]);
    // There is no embedded controller.
    s.bytes(&[0xff, 0xff]);
    s.finish(out);
    Ok(())
}

fn system(out: &mut Vec<u8>, system: &SystemInformation) -> Result<(), SmbiosError> {
    const WOKEN_BY_POWER_SWITCH: u8 = 6;

    let mut s = Structure::new(1, handle::SYSTEM);
    s.text("system manufacturer", &system.manufacturer)?;
    s.text("system product name", &system.product)?;
    s.text("system version", &system.version)?;
    s.text("system serial number", &system.serial)?;
    s.bytes(&system.uuid.to_bytes_le());
    s.byte(WOKEN_BY_POWER_SWITCH);
    s.text("system SKU number", &system.sku)?;
    s.text("system family", &system.family)?;
    s.finish(out);
    Ok(())
}

fn baseboard(out: &mut Vec<u8>, board: &BaseboardInformation) -> Result<(), SmbiosError> {
    const HOSTING_BOARD: u8 = 1 << 0;
    const MOTHERBOARD: u8 = 0xa;

    let mut s = Structure::new(2, handle::BASEBOARD);
    s.text("baseboard manufacturer", &board.manufacturer)?;
    s.text("baseboard product name", &board.product)?;
    s.text("baseboard version", &board.version)?;
    s.text("baseboard serial number", &board.serial)?;
    s.text("baseboard asset tag", &board.asset_tag)?;
    s.byte(HOSTING_BOARD);
    // No text for its place in the chassis.
    s.byte(0);
    s.word(handle::CHASSIS);
    s.byte(MOTHERBOARD);
    // It contains nothing that is listed.
    s.byte(0);
    s.finish(out);
    Ok(())
}

fn chassis(out: &mut Vec<u8>, chassis: &Chassis) -> Result<(), SmbiosError> {
    let mut s = Structure::new(3, handle::CHASSIS);
    s.text("chassis manufacturer", &chassis.manufacturer)?;
    s.byte(OTHER);
    s.text("chassis version", &chassis.version)?;
    s.text("chassis serial number", &chassis.serial)?;
    s.text("chassis asset tag", &chassis.asset_tag)?;
    // At boot: the chassis, its power supply, its temperature.
    s.bytes(&[SAFE, SAFE, SAFE]);
    // Its lock.
    s.byte(UNKNOWN);
    s.dword(0);
    // Height and power cords are not specified, and there are no contained elements.
    s.bytes(&[0, 0, 0, 0]);
    s.text("chassis SKU number", &chassis.sku)?;
    s.finish(out);
    Ok(())
}

fn processor(
    out: &mut Vec<u8>,
    socket: u16,
    processor: &ProcessorInformation,
) -> Result<(), SmbiosError> {
    const CENTRAL_PROCESSOR: u8 = 3;
    const POPULATED_AND_ENABLED: u8 = 0x41;
    const IS_64_BIT: u16 = 1 << 2;
    const IS_MULTI_CORE: u16 = 1 << 3;
    const HAS_HARDWARE_THREADS: u16 = 1 << 4;

    let (cores, threads) = (processor.cores, processor.threads);
    if cores == 0 || threads < cores {
        return Err(SmbiosError::Cores { cores, threads });
    }
    let mut characteristics = IS_64_BIT;
    if cores > 1 {
        characteristics |= IS_MULTI_CORE;
    }
    if threads > cores {
        characteristics |= HAS_HARDWARE_THREADS;
    }
    // 0xff says that the number is in the word.
    let short = |count: u16| u8::try_from(count).unwrap_or(0xff);

    let mut s = Structure::new(4, handle::PROCESSOR + socket);
    s.text("processor socket", &format!("CPU {socket}"))?;
    s.bytes(&[CENTRAL_PROCESSOR, OTHER]);
    s.text("processor manufacturer", &processor.manufacturer)?;
    s.qword(processor.id);
    s.text("processor version", &processor.version)?;
    // Voltage and external clock are unknown.
    s.byte(0);
    s.word(0);
    s.word(processor.max_speed);
    s.word(processor.current_speed);
    s.bytes(&[POPULATED_AND_ENABLED, OTHER]);
    // Caches are not listed.
    for _ in 0..3 {
        s.word(handle::NONE);
    }
    // No serial number, asset tag or part number.
    s.bytes(&[0, 0, 0]);
    s.bytes(&[short(cores), short(cores), short(threads)]);
    s.word(characteristics);
    // The family again, as a word.
    s.word(OTHER.into());
    s.word(cores);
    s.word(cores);
    s.word(threads);
    s.finish(out);
    Ok(())
}

fn memory(out: &mut Vec<u8>, ranges: &[Range<u64>]) -> Result<(), SmbiosError> {
    let mut size = 0u64;
    for range in ranges {
        let Range { start, end } = *range;
        if range.is_empty() || !start.is_multiple_of(1024) || !end.is_multiple_of(1024) {
            return Err(SmbiosError::MemoryRange { start, end });
        }
        size = size.saturating_add(end - start);
    }
    if ranges.len() > MAX_MEMORY_RANGES {
        return Err(SmbiosError::MemoryRanges {
            count: ranges.len(),
            limit: MAX_MEMORY_RANGES,
        });
    }
    let mut device_size = MEMORY_DEVICE_SIZE;
    while size.div_ceil(device_size) > MAX_MEMORY_DEVICES {
        device_size *= 2;
    }
    // A device's size is 31 bits of MiB.
    if size == 0 || !size.is_multiple_of(MIB) || device_size > (i32::MAX as u64) * MIB {
        return Err(SmbiosError::MemorySize { size });
    }
    let devices = size.div_ceil(device_size) as u16;
    memory_array(out, size, devices);
    for index in 0..devices {
        let start = u64::from(index) * device_size;
        memory_device(out, index, device_size.min(size - start))?;
    }
    for (index, range) in (0..).zip(ranges) {
        memory_range(out, index, range);
    }
    Ok(())
}

fn memory_array(out: &mut Vec<u8>, size: u64, devices: u16) {
    const SYSTEM_MEMORY: u8 = 3;
    const IN_EXTENDED_FIELD: u32 = 0x8000_0000;

    let mut s = Structure::new(16, handle::MEMORY_ARRAY);
    // Where it is, what it is for, and how it corrects errors.
    s.bytes(&[OTHER, SYSTEM_MEMORY, UNKNOWN]);
    let kib = u32::try_from(size >> 10).unwrap_or(u32::MAX);
    if kib < IN_EXTENDED_FIELD {
        s.dword(kib);
    } else {
        s.dword(IN_EXTENDED_FIELD);
    }
    s.word(handle::NO_ERRORS);
    s.word(devices);
    s.qword(if kib < IN_EXTENDED_FIELD { 0 } else { size });
    s.finish(out);
}

fn memory_device(out: &mut Vec<u8>, index: u16, size: u64) -> Result<(), SmbiosError> {
    const UNKNOWN_WIDTH: u16 = 0xffff;
    const IN_EXTENDED_FIELD: u16 = 0x7fff;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    const TYPE_DETAIL_OTHER: u16 = 1 << 1;

    let mut s = Structure::new(17, handle::MEMORY_DEVICE + index);
    s.word(handle::MEMORY_ARRAY);
    s.word(handle::NO_ERRORS);
    s.word(UNKNOWN_WIDTH);
    s.word(UNKNOWN_WIDTH);
    let mib = (size / MIB) as u32;
    match u16::try_from(mib) {
        Ok(mib) if mib < IN_EXTENDED_FIELD => s.word(mib),
        _ => s.word(IN_EXTENDED_FIELD),
    }
    s.byte(DIMM);
    // In no set.
    s.byte(0);
    s.text("memory device", &format!("DIMM {index}"))?;
    // No text for its bank.
    s.byte(0);
    s.byte(RAM);
    s.word(TYPE_DETAIL_OTHER);
    // Unknown speed.
    s.word(0);
    // No manufacturer, serial number, asset tag or part number; unknown rank.
    s.bytes(&[0, 0, 0, 0, 0]);
    s.dword(if mib < IN_EXTENDED_FIELD.into() {
        0
    } else {
        mib
    });
    // Unknown configured speed; unknown lowest, highest and configured voltage.
    for _ in 0..4 {
        s.word(0);
    }
    s.finish(out);
    Ok(())
}

fn memory_range(out: &mut Vec<u8>, index: u16, range: &Range<u64>) {
    const IN_EXTENDED_FIELDS: u32 = u32::MAX;

    let last = range.end - 1;
    let mut s = Structure::new(19, handle::MEMORY_RANGE + index);
    // In KiB, inclusive.
    match (u32::try_from(range.start >> 10), u32::try_from(last >> 10)) {
        (Ok(start), Ok(end)) if end != IN_EXTENDED_FIELDS => {
            s.dword(start);
            s.dword(end);
            s.word(handle::MEMORY_ARRAY);
            s.byte(1);
            s.qword(0);
            s.qword(0);
        }
        _ => {
            s.dword(IN_EXTENDED_FIELDS);
            s.dword(IN_EXTENDED_FIELDS);
            s.word(handle::MEMORY_ARRAY);
            s.byte(1);
            s.qword(range.start);
            s.qword(last);
        }
    }
    s.finish(out);
}

fn boot(out: &mut Vec<u8>) {
    const NO_ERRORS: u8 = 0;

    let mut s = Structure::new(32, handle::BOOT);
    s.bytes(&[0; 6]);
    s.byte(NO_ERRORS);
    s.finish(out);
}

/// The entry point of `size` bytes of structures.
fn anchor(size: usize) -> Vec<u8> {
    const LENGTH: u8 = 0x18;
    const ENTRY_POINT_REVISION: u8 = 1;

    let mut bytes = b"_SM3_".to_vec();
    let (major, minor) = VERSION;
    // The checksum follows; the revision of the document's third digit is 0.
    bytes.extend_from_slice(&[0, LENGTH, major, minor, 0, ENTRY_POINT_REVISION, 0]);
    // It fits: at most 16 KiB of texts and a hundred bytes for each of a few thousand structures.
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[5] = sum.wrapping_neg();
    bytes
}

#[cfg(test)]
#[path = "build_test.rs"]
mod tests;
