//! The tables that lead to the others: RSDP (ACPI 6.5, 5.2.5) and XSDT (5.2.8).

use crate::table::ChecksumField;
use crate::table::OEM_ID;
use crate::table::Pointer;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;

/// The RSDP, revision 2, for an XSDT that is table `xsdt`.
pub(crate) fn rsdp(xsdt: usize) -> Table {
    let mut bytes = Vec::new();
    Rsdp::new(OEM_ID, 0).to_aml_bytes(&mut bytes);
    Table {
        signature: *b"RSD ",
        bytes,
        alignment: 16,
        pointers: vec![Pointer {
            offset: 24,
            size: 8,
            target: xsdt,
        }],
        checksums: vec![
            // First that of the ACPI 1.0 fields, which the second checksum covers.
            ChecksumField {
                offset: 8,
                covers: 0..20,
            },
            ChecksumField {
                offset: 32,
                covers: 0..36,
            },
        ],
    }
}

/// The XSDT that lists the tables with these indexes.
pub(crate) fn xsdt(targets: &[usize]) -> Table {
    let mut table = Table::with_header(*b"XSDT", 1, &vec![0; targets.len() * 8]);
    table.pointers = targets
        .iter()
        .enumerate()
        .map(|(i, target)| Pointer {
            offset: 36 + i * 8,
            size: 8,
            target: *target,
        })
        .collect();
    table
}
