//! Making the blob.

use crate::acpi;
use crate::config::MemoryEntry;
use crate::config::PcieApertures;
use crate::config::ProcessorCounts;
use crate::config::UefiConfig;
use crate::error::ConfigError;
use crate::smbios::MAX_PROCESSOR_STRING;
use crate::smbios::SmbiosStrings;
use crate::structure::StructureType;
use std::ops::Range;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

/// Type and length of a structure.
const HEADER: usize = 8;
/// Structures are filled up to multiples of this.
const ALIGNMENT: usize = 8;
/// The first structure: the header, the number of structures and the length of all.
const COUNT: usize = 16;

/// The longest blob. The machines that we make need a few kilobytes; the firmware has to read it from low RAM.
const MAX_LEN: usize = 4 << 20;

impl UefiConfig {
    /// The blob.
    pub fn encode(&self) -> Result<Vec<u8>, ConfigError> {
        self.check()?;
        let mut blob = Blob::new();
        // The flags tell that memory-map entries have 24 bytes.
        blob.words(StructureType::BiosInformation, &[self.image_pages, 0]);
        blob.add(StructureType::MemoryMap, &memory_map(&self.memory_map));
        blob.add(StructureType::BiosGuid, &self.bios_guid.to_bytes_le());
        blob.add(StructureType::Entropy, &self.entropy);
        blob.add(StructureType::MmioRanges, &self.mmio_ranges());
        let ProcessorCounts {
            max,
            count,
            per_socket,
            threads_per_core,
        } = self.processors;
        blob.words(
            StructureType::ProcessorInformation,
            &[max, count, per_socket, threads_per_core],
        );
        blob.add(StructureType::Flags, &self.flags.into_bits().to_le_bytes());
        if let Some(gic) = &self.gic {
            let bases = [gic.distributor, gic.redistributors];
            blob.add(StructureType::Gic, &bases.map(u64::to_le_bytes).concat());
        }
        for table in &self.acpi_tables {
            blob.add(StructureType::AcpiTable, table);
        }
        if !self.pcie.is_empty() {
            let apertures: Vec<u8> = self.pcie.iter().flat_map(aperture).collect();
            blob.add(StructureType::PcieApertures, &apertures);
        }
        if let Some(nvdimms) = self.nvdimms {
            blob.add(StructureType::NvdimmCount, &nvdimms.to_le_bytes());
        }
        if let Some(instance) = self.vpci_instance {
            blob.add(StructureType::VpciInstanceFilter, &instance.to_bytes_le());
        }
        for (kind, text) in self.smbios.by_type() {
            if !text.is_empty() {
                blob.add(kind, &[text.as_bytes(), b"\0"].concat());
            }
        }
        if let Some(processor) = &self.smbios_processor {
            blob.add(StructureType::Processor31, &processor.bytes());
        }
        blob.finish()
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_mmio()?;
        self.check_memory()?;
        let ProcessorCounts {
            max,
            count,
            per_socket,
            threads_per_core,
        } = self.processors;
        if count > max || [count, per_socket, threads_per_core].contains(&0) {
            return Err(ConfigError::Processors {
                max,
                count,
                per_socket,
                threads: threads_per_core,
            });
        }
        self.acpi_tables
            .iter()
            .try_for_each(|table| acpi::check(table))?;
        check_strings(&self.smbios)
    }

    /// What is not RAM, with names.
    fn mmio(&self) -> impl Iterator<Item = (&'static str, &Range<u64>)> {
        let gaps = [
            ("the low MMIO gap", &self.low_mmio),
            ("the high MMIO gap", &self.high_mmio),
        ];
        let windows = self.pcie.iter().flat_map(|aperture| {
            [
                ("the low PCIe window", &aperture.low),
                ("the high PCIe window", &aperture.high),
            ]
        });
        gaps.into_iter().chain(windows)
    }

    fn check_mmio(&self) -> Result<(), ConfigError> {
        let gap = |what, range: &Range<u64>, holds: bool, rule| match holds {
            true => Ok(()),
            false => Err(ConfigError::Gap {
                what,
                start: range.start,
                end: range.end,
                rule,
            }),
        };
        for (what, range) in self.mmio() {
            gap(what, range, range.start <= range.end, "a range")?;
        }
        let (low, high) = (&self.low_mmio, &self.high_mmio);
        gap(
            "the low MMIO gap",
            low,
            low.end <= FOUR_GIB && low.start.is_multiple_of(PAGE) && low.end.is_multiple_of(PAGE),
            "a range of pages that ends at or below 4 GiB",
        )?;
        // The firmware tells the two gaps apart by this, and hands the high one on in MiB.
        gap(
            "the high MMIO gap",
            high,
            high.start >= FOUR_GIB
                && high.start.is_multiple_of(MIB)
                && high.end.is_multiple_of(MIB),
            "a range of MiB above 4 GiB",
        )?;
        for aperture in &self.pcie {
            if aperture.first_bus > aperture.last_bus {
                return Err(ConfigError::Buses {
                    first: aperture.first_bus,
                    last: aperture.last_bus,
                });
            }
            let low = &aperture.low;
            gap(
                "the low PCIe window",
                low,
                low.end <= FOUR_GIB,
                "below 4 GiB",
            )?;
            let high = &aperture.high;
            let above = high.is_empty() || high.start >= FOUR_GIB;
            gap("the high PCIe window", high, above, "above 4 GiB")?;
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        if self.memory_map.is_empty() {
            return Err(ConfigError::NoMemory);
        }
        let mut previous = 0;
        for &MemoryEntry { base, len, .. } in &self.memory_map {
            let pages = base.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0;
            let Some(end) = base.checked_add(len).filter(|_| pages) else {
                return Err(ConfigError::MemoryRange { base, len });
            };
            if base < previous {
                return Err(ConfigError::MemoryOrder { base });
            }
            previous = end;
            for (what, range) in self.mmio() {
                if base < range.end && range.start < end && !range.is_empty() {
                    return Err(ConfigError::MemoryInMmio {
                        base,
                        what,
                        start: range.start,
                        end: range.end,
                    });
                }
            }
        }
        Ok(())
    }

    /// The gaps, each as its first page and its number of pages; the low one first.
    fn mmio_ranges(&self) -> Vec<u8> {
        [&self.low_mmio, &self.high_mmio]
            .into_iter()
            .flat_map(|range| [range.start / PAGE, (range.end - range.start) / PAGE])
            .flat_map(u64::to_le_bytes)
            .collect()
    }
}

fn memory_map(entries: &[MemoryEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(entry.base.to_le_bytes());
        bytes.extend(entry.len.to_le_bytes());
        bytes.extend((entry.usage as u32).to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

fn aperture(aperture: &PcieApertures) -> Vec<u8> {
    let mut bytes = aperture.segment.to_le_bytes().to_vec();
    bytes.extend([aperture.first_bus, aperture.last_bus]);
    bytes.extend(aperture.uid.to_le_bytes());
    for window in [&aperture.low, &aperture.high] {
        bytes.extend(window.start.to_le_bytes());
        bytes.extend((window.end - window.start).to_le_bytes());
    }
    bytes
}

fn check_strings(strings: &SmbiosStrings) -> Result<(), ConfigError> {
    for (kind, text) in strings.by_type() {
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ConfigError::Characters {
                kind,
                text: text.to_owned(),
            });
        }
    }
    for (kind, text) in strings.processor.by_type() {
        if text.len() > MAX_PROCESSOR_STRING {
            return Err(ConfigError::StringTooLong {
                kind,
                len: text.len(),
                max: MAX_PROCESSOR_STRING,
            });
        }
    }
    Ok(())
}

/// The blob while it grows. The first structure is filled in at the end.
struct Blob {
    bytes: Vec<u8>,
    count: u32,
}

impl Blob {
    fn new() -> Self {
        Self {
            bytes: vec![0; COUNT],
            count: 1,
        }
    }

    /// Adds a structure. One that is too long for its length field makes the blob too long.
    fn add(&mut self, kind: StructureType, payload: &[u8]) {
        let len = (HEADER + payload.len()).next_multiple_of(ALIGNMENT);
        let end = self.bytes.len() + len;
        self.bytes.extend(kind.number().to_le_bytes());
        self.bytes.extend((len as u32).to_le_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(end, 0);
        self.count += 1;
    }

    fn words(&mut self, kind: StructureType, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.add(kind, &bytes);
    }

    fn finish(mut self) -> Result<Vec<u8>, ConfigError> {
        let len = self.bytes.len();
        if len > MAX_LEN {
            return Err(ConfigError::TooLong { len, max: MAX_LEN });
        }
        let first = [
            StructureType::StructureCount.number(),
            COUNT as u32,
            self.count,
            len as u32,
        ];
        for (at, word) in self.bytes.chunks_exact_mut(4).zip(first) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        Ok(self.bytes)
    }
}
