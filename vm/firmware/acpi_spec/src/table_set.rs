//! All tables of a platform, and their places in guest memory.

use crate::AcpiError;
use crate::dsdt;
use crate::fadt;
use crate::generation_id;
use crate::madt;
use crate::pci;
use crate::platform::AcpiPlatform;
use crate::root;
use crate::table::Table;

/// The size of the region for the tables, in bytes. It does not depend on the tables, so that the guest's memory
/// map stays the same when a processor or a device is added. Enough for 2048 processors.
pub const REGION_SIZE: u64 = 0x4_0000;

/// The version of [`REGION_SIZE`] and of the order of the tables in the region; it changes when they do. A guest
/// that hibernated with one version may refuse to resume with another.
pub const REGION_VERSION: u32 = 1;

const FOUR_GIB: u64 = 1 << 32;

/// The tables of a platform, not yet at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSet {
    rsdp: Table,
    tables: Vec<Table>,
    /// Index of the table with the generation ID's address, if there is one.
    generation_id: Option<usize>,
}

/// Tables that have an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedTables {
    /// The region's guest-physical address; it is [`REGION_SIZE`] bytes long.
    pub base: u64,
    /// The bytes at the start of the region. The rest of it is zero.
    pub bytes: Vec<u8>,
    /// The RSDP, which goes where the boot protocol wants it.
    pub rsdp: Vec<u8>,
    /// The address of each table, in the order of [`TableSet::tables`].
    pub addresses: Vec<u64>,
}

impl TableSet {
    /// The tables that describe `platform`.
    pub fn new(platform: &AcpiPlatform) -> Result<Self, AcpiError> {
        platform.validate()?;
        // The FACS first: the guest writes to it, so its address must not depend on the size of other tables.
        let (facs, dsdt, fadt, madt) = (0, 1, 2, 3);
        let mut tables = vec![
            fadt::facs(),
            dsdt::dsdt(platform),
            fadt::fadt(platform, facs, dsdt),
            madt::madt(platform),
        ];
        let mut listed = vec![fadt, madt];
        if let Some(pci) = &platform.pci
            && let Some(mcfg) = pci::mcfg(pci)
        {
            listed.push(tables.len());
            tables.push(mcfg);
        }
        let mut generation_id = None;
        if let Some(event) = platform.generation_id_event {
            generation_id = Some(tables.len());
            listed.push(tables.len());
            tables.push(generation_id::ssdt(event));
        }
        let xsdt = tables.len();
        tables.push(root::xsdt(&listed));
        Ok(Self {
            rsdp: root::rsdp(xsdt),
            tables,
            generation_id,
        })
    }

    /// The tables besides the RSDP, with the offsets of their pointers and checksums.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The RSDP.
    pub fn rsdp(&self) -> &Table {
        &self.rsdp
    }

    /// Index of the table with the generation ID's address.
    pub(crate) fn generation_id_table(&self) -> Option<usize> {
        self.generation_id
    }

    /// The first table with `signature`.
    pub fn table(&self, signature: [u8; 4]) -> Option<&Table> {
        self.tables.iter().find(|t| t.signature == signature)
    }

    /// The offset of each table when they are placed one after the other, and the end of the last one.
    pub(crate) fn offsets(&self) -> (Vec<usize>, usize) {
        let mut offsets = Vec::with_capacity(self.tables.len());
        let mut end = 0usize;
        for table in &self.tables {
            let offset = end.next_multiple_of(table.alignment);
            offsets.push(offset);
            end = offset + table.bytes.len();
        }
        (offsets, end)
    }

    /// Places the tables in the [`REGION_SIZE`] bytes from guest-physical address `base`, which must be a
    /// multiple of the page size.
    pub fn place(&self, base: u64) -> Result<PlacedTables, AcpiError> {
        if !base.is_multiple_of(4096) || base.saturating_add(REGION_SIZE) > FOUR_GIB {
            return Err(AcpiError::RegionAddress { base });
        }
        if self.generation_id.is_some() {
            return Err(AcpiError::GenerationIdUnplaced);
        }
        let (offsets, end) = self.offsets();
        if end as u64 > REGION_SIZE {
            return Err(AcpiError::RegionOverflow { size: end });
        }
        let addresses: Vec<u64> = offsets.iter().map(|o| base + *o as u64).collect();
        let mut bytes = vec![0; end];
        for (table, offset) in self.tables.iter().zip(&offsets) {
            let mut table = table.clone();
            table.resolve(&addresses);
            bytes[*offset..offset + table.bytes.len()].copy_from_slice(&table.bytes);
        }
        let mut rsdp = self.rsdp.clone();
        rsdp.resolve(&addresses);
        Ok(PlacedTables {
            base,
            bytes,
            rsdp: rsdp.bytes,
            addresses,
        })
    }
}

#[cfg(test)]
#[path = "table_set_test.rs"]
pub(crate) mod tests;
