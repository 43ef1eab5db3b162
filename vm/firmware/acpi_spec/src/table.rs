//! A table before it has an address.

use acpi_tables::sdt::Sdt;
use std::ops::Range;

pub(crate) const OEM_ID: [u8; 6] = *b"OPENVM";
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"OPENVMM ";
pub(crate) const OEM_REVISION: u32 = 1;

/// A table whose pointers to other tables are zero.
///
/// Whatever assigns the addresses ([`crate::TableSet::place`], or firmware that runs a table-loader script)
/// fills in the pointers, then the checksums in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The signature; `RSD ` for the RSDP.
    pub signature: [u8; 4],
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The alignment of the table's address, in bytes.
    pub alignment: usize,
    /// Its pointers to other tables.
    pub pointers: Vec<Pointer>,
    /// Its checksums.
    pub checksums: Vec<ChecksumField>,
}

/// A field that holds the guest-physical address of another table.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The field's offset, in bytes.
    pub offset: usize,
    /// The field's size, 4 or 8 bytes.
    pub size: usize,
    /// Index of the other table in [`crate::TableSet::tables`].
    pub target: usize,
}

/// A byte with which a range of bytes adds up to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChecksumField {
    /// The byte's offset.
    pub offset: usize,
    /// The range of bytes that add up to zero.
    pub covers: Range<usize>,
}

impl Table {
    /// A table with the common header (ACPI 6.5, 5.2.6) around `body`.
    pub(crate) fn with_header(signature: [u8; 4], revision: u8, body: &[u8]) -> Self {
        let mut sdt = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        sdt.append_slice(body);
        Self::from_complete(signature, sdt.as_slice().to_vec())
    }

    /// A table whose bytes start with the common header.
    pub(crate) fn from_complete(signature: [u8; 4], bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self {
            signature,
            bytes,
            alignment: 16,
            pointers: Vec::new(),
            checksums: vec![ChecksumField {
                offset: 9,
                covers: 0..len,
            }],
        }
    }

    /// The bytes with their checksums, for a table that is given to a guest without the tables that it points to.
    pub fn alone(&self) -> Vec<u8> {
        let mut table = self.clone();
        table.update_checksums();
        table.bytes
    }

    /// Computes the checksums.
    pub(crate) fn update_checksums(&mut self) {
        for field in &self.checksums {
            self.bytes[field.offset] = 0;
            let sum = self.bytes[field.covers.clone()]
                .iter()
                .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            self.bytes[field.offset] = sum.wrapping_neg();
        }
    }

    /// Fills in the pointers, with the address of table `i` in `addresses[i]`, and the checksums.
    pub(crate) fn resolve(&mut self, addresses: &[u64]) {
        for p in &self.pointers {
            let address = addresses[p.target].to_le_bytes();
            self.bytes[p.offset..p.offset + p.size].copy_from_slice(&address[..p.size]);
        }
        self.update_checksums();
    }
}
