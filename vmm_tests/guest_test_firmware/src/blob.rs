//! Walking the configuration blob, as the firmware does.

use crate::acpi;
use crate::bytes::digest;
use crate::bytes::u8_at;
use crate::bytes::u16_at;
use crate::bytes::u32_at;
use crate::bytes::u64_at;
use crate::report::Report;

/// The longest blob that is walked.
pub const MAX_LEN: usize = 1 << 20;

const PAGE: u64 = 4096;
const FOUR_GIB: u64 = 1 << 32;

/// Types of structures.
mod kind {
    pub(super) const COUNT: u32 = 0x00;
    pub(super) const BIOS: u32 = 0x01;
    pub(super) const MEMORY_MAP: u32 = 0x03;
    pub(super) const ENTROPY: u32 = 0x04;
    pub(super) const GUID: u32 = 0x05;
    pub(super) const FLAGS: u32 = 0x12;
    pub(super) const PROCESSORS: u32 = 0x13;
    pub(super) const MMIO: u32 = 0x14;
    pub(super) const ACPI_TABLE: u32 = 0x16;
    pub(super) const APERTURES: u32 = 0x28;
    /// All but the last are known.
    pub(super) const END: u32 = 0x29;
    pub(super) const STRINGS: [core::ops::RangeInclusive<u32>; 3] =
        [0x06..=0x0a, 0x0c..=0x11, 0x1a..=0x1f];
}

const MTRRS_INITIALIZED: u64 = 1 << 28;
const SERIAL_PORTS: u64 = 1 << 0;

/// What the rest of the checks need of the blob.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The length that the blob states.
    pub len: usize,
    /// RAM below 4 GiB ends here.
    pub low_ram_end: u64,
    /// All RAM ends here.
    pub ram_end: u64,
    /// The low MMIO gap starts here.
    pub low_gap: u64,
    /// The size of the image in pages.
    pub image_pages: u32,
    /// The flags.
    pub flags: u64,
    /// The number of processors.
    pub processors: u32,
}

/// The length that the blob at the start of `bytes` states, if it can be.
pub fn stated_len(bytes: &[u8]) -> Option<usize> {
    let total = u32_at(bytes, 12)? as usize;
    let first = u32_at(bytes, 0)? == kind::COUNT && u32_at(bytes, 4)? == 16;
    (first && total > 16 && total <= MAX_LEN && total.is_multiple_of(8)).then_some(total)
}

/// Checks a whole blob, and reports on each part.
pub fn check(blob: &[u8], report: &mut Report<'_>) -> Summary {
    let mut summary = Summary {
        len: blob.len(),
        ..Summary::default()
    };
    let mut seen = [0_u32; kind::END as usize];
    let (mut at, mut count) = (0, 0);
    let mut stable = 0xcbf2_9ce4_8422_2325;
    while at < blob.len() {
        let Some((kind, payload)) = structure(blob, at) else {
            report.holds("config.framing", false, at as u64);
            return summary;
        };
        if let Some(seen) = seen.get_mut(kind as usize) {
            *seen += 1;
        }
        check_structure(kind, payload, &mut summary, report);
        // Random bytes are not the same in each boot.
        if kind != kind::ENTROPY {
            stable = (stable ^ digest(payload)).wrapping_mul(0x100_0000_01b3);
        }
        at += payload.len() + 8;
        count += 1;
    }
    report.holds("config.framing", at == blob.len(), at as u64);
    report.field("config.count", count, u32_at(blob, 8).map(u64::from));
    for (name, kind) in [
        ("config.has.bios", kind::BIOS),
        ("config.has.memory", kind::MEMORY_MAP),
        ("config.has.entropy", kind::ENTROPY),
        ("config.has.guid", kind::GUID),
        ("config.has.flags", kind::FLAGS),
        ("config.has.processors", kind::PROCESSORS),
        ("config.has.mmio", kind::MMIO),
    ] {
        let seen = seen.get(kind as usize).copied().unwrap_or(0);
        report.equal(name, 1, seen.into());
    }
    let tables = seen.get(kind::ACPI_TABLE as usize).copied().unwrap_or(0);
    report.value("config.tables", tables.into());
    report.value("config.digest", stable);
    let fits = summary.low_ram_end <= summary.low_gap;
    report.holds("config.memory.below_gap", fits, summary.low_ram_end);
    summary
}

/// Type and payload of the structure at an offset.
fn structure(blob: &[u8], at: usize) -> Option<(u32, &[u8])> {
    let (kind, len) = (u32_at(blob, at)?, u32_at(blob, at + 4)? as usize);
    if len <= 8 || !len.is_multiple_of(8) {
        return None;
    }
    Some((kind, blob.get(at + 8..at.checked_add(len)?)?))
}

fn check_structure(kind: u32, payload: &[u8], summary: &mut Summary, report: &mut Report<'_>) {
    let len = payload.len() as u64;
    match kind {
        kind::COUNT => report.equal("config.first.length", 8, len),
        kind::BIOS => {
            summary.image_pages = u32_at(payload, 0).unwrap_or(0);
            report.field("config.bios.flags", 0, u32_at(payload, 4).map(u64::from));
            report.value("config.bios.pages", summary.image_pages.into());
        }
        kind::MEMORY_MAP => check_memory(payload, summary, report),
        kind::ENTROPY => {
            report.equal("config.entropy.length", 64, len);
            report.holds("config.entropy.random", is_mixed(payload), 0);
        }
        kind::GUID => {
            report.equal("config.guid.length", 16, len);
            report.value("config.guid.low", u64_at(payload, 0).unwrap_or(0));
            report.value("config.guid.high", u64_at(payload, 8).unwrap_or(0));
        }
        kind::FLAGS => {
            summary.flags = u64_at(payload, 0).unwrap_or(0);
            report.value("config.flags", summary.flags);
            let mtrrs = summary.flags & MTRRS_INITIALIZED != 0;
            report.holds("config.flags.mtrrs", mtrrs, summary.flags);
            let serial = summary.flags & SERIAL_PORTS != 0;
            report.holds("config.flags.serial", serial, summary.flags);
            report.equal("config.flags.reserved", 0, summary.flags >> 34);
        }
        kind::PROCESSORS => {
            let word = |n: usize| u32_at(payload, 4 * n).unwrap_or(0);
            summary.processors = word(1);
            report.value("config.processors", word(1).into());
            let possible = word(1) > 0 && word(1) <= word(0) && word(2) > 0 && word(3) > 0;
            report.holds("config.processors.possible", possible, word(2).into());
        }
        kind::MMIO => check_mmio(payload, summary, report),
        kind::ACPI_TABLE => acpi::check(payload, report),
        kind::APERTURES => {
            report.holds(
                "config.apertures.length",
                len > 0 && len.is_multiple_of(40),
                len,
            );
            let first = u8_at(payload, 2).unwrap_or(u8::MAX);
            let last = u8_at(payload, 3).unwrap_or(0);
            report.holds("config.apertures.buses", first <= last, first.into());
            let segment = u16_at(payload, 0).unwrap_or(u16::MAX);
            report.value("config.apertures.segment", segment.into());
        }
        _ if kind::STRINGS.iter().any(|range| range.contains(&kind)) => {
            #[expect(clippy::manual_contains, reason = "that is compiled with SSE")]
            let ends = payload.iter().any(|byte| *byte == 0) && payload.first() != Some(&0);
            report.holds("config.string", ends, kind.into());
        }
        _ => report.value("config.other", kind.into()),
    }
}

/// Whether the bytes are not all the same, nor a row of a few.
fn is_mixed(bytes: &[u8]) -> bool {
    let mut set = [0_u64; 4];
    for byte in bytes {
        if let Some(word) = set.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    let distinct: u32 = set.iter().map(|word| word.count_ones()).sum();
    distinct > 16
}

fn check_memory(payload: &[u8], summary: &mut Summary, report: &mut Report<'_>) {
    let (mut previous, mut total, mut good) = (0, 0, payload.len().is_multiple_of(24));
    let mut at = 0;
    while at < payload.len() {
        let base = u64_at(payload, at).unwrap_or(0);
        let len = u64_at(payload, at + 8).unwrap_or(0);
        let end = base.saturating_add(len);
        good &=
            base >= previous && end > base && base.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        good &= u32_at(payload, at + 20) == Some(0);
        previous = end;
        total += len;
        if base < FOUR_GIB {
            summary.low_ram_end = end;
        }
        summary.ram_end = end;
        at += 24;
    }
    report.holds("config.memory.map", good, previous);
    report.equal("config.memory.start", 0, u64_at(payload, 0).unwrap_or(1));
    report.value("config.memory.size", total);
}

fn check_mmio(payload: &[u8], summary: &mut Summary, report: &mut Report<'_>) {
    report.equal("config.mmio.length", 32, payload.len() as u64);
    let page = |at: usize| u64_at(payload, at).unwrap_or(0).saturating_mul(PAGE);
    let (low, low_len, high) = (page(0), page(8), page(16));
    summary.low_gap = low;
    report.equal("config.mmio.low_end", FOUR_GIB, low.saturating_add(low_len));
    report.holds("config.mmio.high", high >= FOUR_GIB, high);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::Text;

    fn add(blob: &mut Vec<u8>, kind: u32, payload: &[u8]) {
        let len = (payload.len() + 8).next_multiple_of(8);
        let end = blob.len() + len;
        blob.extend(kind.to_le_bytes());
        blob.extend((len as u32).to_le_bytes());
        blob.extend(payload);
        blob.resize(end, 0);
        let count = u32_at(blob, 8).unwrap() + 1;
        blob[8..12].copy_from_slice(&count.to_le_bytes());
        blob[12..16].copy_from_slice(&(end as u32).to_le_bytes());
    }

    fn longs(values: &[u64]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn blob() -> Vec<u8> {
        let mut blob = words(&[0, 16, 1, 16]);
        add(&mut blob, 0x01, &words(&[0x600, 0]));
        let map = [0, 0xb000_0000, 0, FOUR_GIB, 0x1000_0000, 0];
        add(&mut blob, 0x03, &longs(&map));
        let entropy: Vec<u8> = (0..64).collect();
        add(&mut blob, 0x04, &entropy);
        add(&mut blob, 0x05, &[7; 16]);
        add(&mut blob, 0x12, &longs(&[1 | 1 << 28]));
        add(&mut blob, 0x13, &words(&[4, 4, 4, 1]));
        add(&mut blob, 0x14, &longs(&[0xf8000, 0x8000, 0x10_0000, 0]));
        add(&mut blob, 0x1a, b"OpenVMM\0");
        blob
    }

    fn report(blob: &[u8]) -> (Summary, Vec<String>, u32) {
        let mut text = Text::default();
        let mut report = Report::new(&mut text);
        let summary = check(blob, &mut report);
        let failed = report.failed();
        (summary, text.lines(), failed)
    }

    #[test]
    fn a_good_blob_passes() {
        let blob = blob();
        assert_eq!(stated_len(&blob), Some(blob.len()));
        let (summary, lines, failed) = report(&blob);
        assert_eq!(failed, 0, "{lines:#?}");
        assert_eq!(
            summary,
            Summary {
                len: blob.len(),
                low_ram_end: 0xb000_0000,
                ram_end: FOUR_GIB + 0x1000_0000,
                low_gap: 0xf800_0000,
                image_pages: 0x600,
                flags: 0x1000_0001,
                processors: 4,
            }
        );
        for line in [
            "value config.memory.size 0xc0000000",
            "value config.processors 0x4",
            "check config.count ok",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn each_damage_is_found() {
        let good = blob();
        let (_, lines, _) = report(&good);
        let digest = |lines: &[String]| {
            let line = lines
                .iter()
                .find(|line| line.starts_with("value config.digest"));
            line.unwrap().clone()
        };
        // The number of structures, a length, RAM in the wrong order, no processors, the end of the low gap, a string
        // without end, too large a type for a required structure.
        for (at, value) in [(8, 1), (20, 1), (40 + 24, 0xff), (200, 0), (232, 0x90)] {
            let mut blob = good.clone();
            blob[at] = value;
            let (_, _, failed) = report(&blob);
            assert!(failed > 0, "{at}");
        }
        let entropy = good
            .windows(4)
            .position(|window| window == [1, 2, 3, 4])
            .unwrap();
        let mut blob = good.clone();
        blob[entropy] = 77;
        let (_, other, failed) = report(&blob);
        assert_eq!((digest(&other), failed), (digest(&lines), 0));
        blob[entropy - 1..entropy + 63].fill(5);
        assert_eq!(report(&blob).2, 1);
        let mut blob = good.clone();
        *blob.last_mut().unwrap() = b'x';
        assert_eq!(report(&blob).2, 1);
        for cut in 1..good.len() {
            let _ = report(&good[..cut]);
        }
    }

    #[test]
    fn nonsense_has_no_length() {
        for bytes in [
            &[][..],
            &[0; 16],
            &words(&[0, 16, 2, 16]),
            &words(&[0, 16, 2, 25]),
            &words(&[1, 16, 2, 32]),
            &words(&[0, 16, 2, u32::MAX - 7]),
        ] {
            assert_eq!(stated_len(bytes), None);
        }
    }
}
