//! The ACPI tables in the blob.

use crate::bytes::u8_at;
use crate::bytes::u32_at;
use crate::report::Report;

const HEADER: usize = 36;
/// The first entry of a MADT.
const MADT_ENTRIES: usize = 44;

/// Checks a table. `payload` may be longer than it.
pub fn check(payload: &[u8], report: &mut Report<'_>) {
    let len = u32_at(payload, 4).unwrap_or(0) as usize;
    let table = payload.get(..len).filter(|table| table.len() >= HEADER);
    let Some(table) = table else {
        report.holds("acpi.length", false, len as u64);
        return;
    };
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    report.equal("acpi.checksum", 0, sum.into());
    let signature = u32_at(table, 0).unwrap_or(0).to_le_bytes();
    if signature == *b"APIC" {
        let counts = madt(table);
        report.value(
            "acpi.madt.processors",
            counts.map_or(0, |counts| counts.processors),
        );
        report.field("acpi.madt.ioapics", 1, counts.map(|counts| counts.ioapics));
    }
    for (name, known) in [
        ("acpi.mcfg", b"MCFG"),
        ("acpi.ssdt", b"SSDT"),
        ("acpi.srat", b"SRAT"),
    ] {
        if signature == *known {
            report.value(name, len as u64);
        }
    }
}

/// What a MADT tells of.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MadtCounts {
    /// Enabled processors.
    pub processors: u64,
    /// I/O APICs.
    pub ioapics: u64,
}

/// Counts the entries of a MADT; `None` if one does not fit.
pub fn madt(table: &[u8]) -> Option<MadtCounts> {
    let mut counts = MadtCounts {
        processors: 0,
        ioapics: 0,
    };
    let mut at = MADT_ENTRIES;
    while at < table.len() {
        let (kind, len) = (u8_at(table, at)?, usize::from(u8_at(table, at + 1)?));
        if len < 2 || at + len > table.len() {
            return None;
        }
        let enabled = |flags: usize| u32_at(table, at + flags).map(|flags| u64::from(flags & 1));
        match kind {
            0 => counts.processors += enabled(4)?,
            1 => counts.ioapics += 1,
            9 => counts.processors += enabled(8)?,
            _ => {}
        }
        at += len;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_both_kinds_are_counted() {
        let mut table = vec![0; MADT_ENTRIES];
        table.extend([0, 8, 1, 0, 1, 0, 0, 0]);
        table.extend([0, 8, 2, 1, 0, 0, 0, 0]);
        table.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        table.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        let counts = MadtCounts {
            processors: 2,
            ioapics: 1,
        };
        assert_eq!(madt(&table), Some(counts));
        table.extend([5, 0]);
        assert_eq!(madt(&table), None);
        table.pop();
        assert_eq!(madt(&table), None);
    }
}
