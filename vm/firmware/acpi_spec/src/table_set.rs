//! All tables of a machine, and their places in guest memory.

use crate::BuildError;
use crate::dsdt;
use crate::fadt;
use crate::generation_id;
use crate::machine::Machine;
use crate::madt;
use crate::pci;
use crate::root;
use crate::table::Table;
use acpi_tables::Aml;

/// The size of the region that holds the tables, in bytes, however few or small they are: the guest's memory
/// map must not move when a processor or a device is added. Enough for 2048 processors.
pub const REGION_SIZE: u64 = 0x4_0000;

/// The version of [`REGION_SIZE`] and of the order of the tables in the region. It changes with them, and a
/// guest that hibernated on one version may refuse to wake on another.
pub const REGION_VERSION: u32 = 1;

const FOUR_GIB: u64 = 1 << 32;

/// The tables of a machine, not yet at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSet {
    rsdp: Table,
    tables: Vec<Table>,
    /// Index of the table that names the generation ID's address, if one does.
    generation_id: Option<usize>,
}

/// Tables that have an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedTables {
    /// The region's guest-physical address; it is [`REGION_SIZE`] bytes long.
    pub base: u64,
    /// What goes at the region's start. The rest of the region is zero.
    pub bytes: Vec<u8>,
    /// The RSDP, for wherever the boot protocol wants it.
    pub rsdp: Vec<u8>,
    /// The address of each table, in the order of [`TableSet::tables`].
    pub addresses: Vec<u64>,
}

impl TableSet {
    /// The tables that describe `machine`.
    pub fn new(machine: &Machine) -> Result<Self, BuildError> {
        Self::with_objects(machine, &[], Vec::new())
    }

    /// The tables that describe `machine`, with further `objects` at the end of the DSDT's `\_SB` and
    /// `further` tables (SSDTs, MCFG, SRAT, ...) listed in the XSDT.
    pub fn with_objects(
        machine: &Machine,
        objects: &[&dyn Aml],
        further: Vec<Table>,
    ) -> Result<Self, BuildError> {
        machine.validate()?;
        // The FACS first: the guest writes to it, so its address must not depend on the others' sizes.
        let (facs, dsdt, fadt, madt) = (0, 1, 2, 3);
        let mut tables = vec![
            fadt::facs(),
            dsdt::dsdt(machine, objects),
            fadt::fadt(machine, facs, dsdt),
            madt::madt(machine),
        ];
        let mut listed = vec![fadt, madt];
        if let Some(pci) = &machine.pci
            && let Some(mcfg) = pci::mcfg(pci)
        {
            listed.push(tables.len());
            tables.push(mcfg);
        }
        let mut generation_id = None;
        if let Some(event) = machine.generation_id_event {
            generation_id = Some(tables.len());
            listed.push(tables.len());
            tables.push(generation_id::ssdt(event));
        }
        for table in further {
            listed.push(tables.len());
            tables.push(table);
        }
        let xsdt = tables.len();
        tables.push(root::xsdt(&listed));
        Ok(Self {
            rsdp: root::rsdp(xsdt),
            tables,
            generation_id,
        })
    }

    /// The tables besides the RSDP, with where they name each other and where their checksums are.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The RSDP.
    pub fn rsdp(&self) -> &Table {
        &self.rsdp
    }

    /// Index of the table that names the generation ID's address.
    pub(crate) fn generation_id_table(&self) -> Option<usize> {
        self.generation_id
    }

    /// The first table with `signature`.
    pub fn table(&self, signature: [u8; 4]) -> Option<&Table> {
        self.tables.iter().find(|t| t.signature == signature)
    }

    /// The offset of each table when they lie one after the other, and where the last one ends.
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
    pub fn place(&self, base: u64) -> Result<PlacedTables, BuildError> {
        if !base.is_multiple_of(4096) || base.saturating_add(REGION_SIZE) > FOUR_GIB {
            return Err(BuildError::RegionAddress { base });
        }
        if self.generation_id.is_some() {
            return Err(BuildError::GenerationIdUnplaced);
        }
        let (offsets, end) = self.offsets();
        if end as u64 > REGION_SIZE {
            return Err(BuildError::RegionOverflow { size: end });
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
mod tests {
    use super::*;
    use crate::Processor;
    use crate::iasl_test::full;

    use crate::iasl_test::processors;
    use proptest::prelude::*;

    const BASE: u64 = 0x1_9000;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    /// Walks from the RSDP to every table as an operating system does, and returns their signatures.
    fn walk(placed: &PlacedTables) -> Vec<String> {
        let at = |address: u64| {
            let offset = usize::try_from(address - placed.base).unwrap();
            let length = u32_at(&placed.bytes, offset + 4) as usize;
            &placed.bytes[offset..offset + length]
        };
        assert_eq!(&placed.rsdp[..8], b"RSD PTR ");
        assert_eq!(placed.rsdp.len(), 36);
        assert_eq!(placed.rsdp[15], 2);
        assert_eq!(sum(&placed.rsdp[..20]), 0);
        assert_eq!(sum(&placed.rsdp), 0);
        let xsdt = at(u64_at(&placed.rsdp, 24));
        assert_eq!(sum(xsdt), 0);
        let mut found = Vec::new();
        for entry in xsdt[36..].as_chunks::<8>().0 {
            let table = at(u64::from_le_bytes(*entry));
            assert_eq!(sum(table), 0);
            found.push(String::from_utf8(table[..4].to_vec()).unwrap());
            if &table[..4] == b"FACP" {
                let facs = u64::from(u32_at(table, 36));
                assert_eq!(facs % 64, 0);
                assert_eq!(&at(facs)[..4], b"FACS");
                assert_eq!(
                    u64_at(table, 132),
                    0,
                    "X_FIRMWARE_CTRL excludes FIRMWARE_CTRL"
                );
                let dsdt = u64_at(table, 140);
                assert_eq!(u64::from(u32_at(table, 40)), dsdt);
                assert_eq!(&at(dsdt)[..4], b"DSDT");
                assert_eq!(sum(at(dsdt)), 0);
            }
        }
        found
    }

    #[test]
    fn every_table_is_reached_from_the_rsdp() {
        let set = TableSet::new(&full(processors(3))).unwrap();
        assert_eq!(walk(&set.place(BASE).unwrap()), ["FACP", "APIC"]);
    }

    #[test]
    fn further_tables_are_listed() {
        let ssdt = Table::with_header(*b"SSDT", 2, &[]);
        let ssdt = Table::from_bytes(ssdt.bytes).unwrap();
        let machine = Machine::bare(processors(1));
        let set = TableSet::with_objects(&machine, &[], vec![ssdt]).unwrap();
        assert_eq!(walk(&set.place(BASE).unwrap()), ["FACP", "APIC", "SSDT"]);
    }

    #[test]
    fn foreign_bytes_that_are_no_table_are_refused() {
        assert_eq!(Table::from_bytes(Vec::new()), None);
        assert_eq!(Table::from_bytes(vec![0; 36]), None);
        let mut short = Table::with_header(*b"SSDT", 2, &[1, 2, 3]).bytes;
        short.pop();
        assert_eq!(Table::from_bytes(short), None);
    }

    #[test]
    fn the_same_machine_is_the_same_bytes() {
        let place = || {
            TableSet::new(&full(processors(8)))
                .unwrap()
                .place(BASE)
                .unwrap()
        };
        assert_eq!(place(), place());
    }

    #[test]
    fn devices_do_not_move_what_the_guest_writes_to() {
        let small = TableSet::new(&Machine::bare(processors(1))).unwrap();
        let large = TableSet::new(&full(processors(64))).unwrap();
        assert_eq!(small.tables()[0].signature, *b"FACS");
        assert_eq!(
            small.place(BASE).unwrap().addresses[0],
            large.place(BASE).unwrap().addresses[0]
        );
        // The hardware signature stays what it was when the guest went to sleep.
        let signature = |set: &TableSet| u32_at(&set.table(*b"FACS").unwrap().bytes, 8);
        assert_eq!(signature(&small), signature(&large));
    }

    #[test]
    fn the_region_holds_2048_processors_and_refuses_what_does_not_fit() {
        let set = TableSet::new(&full(processors(2048))).unwrap();
        set.place(BASE).unwrap();
        let filler = Table::with_header(*b"SSDT", 2, &vec![0; REGION_SIZE as usize]);
        let set = TableSet::with_objects(&Machine::bare(processors(1)), &[], vec![filler]).unwrap();
        assert!(matches!(
            set.place(BASE),
            Err(BuildError::RegionOverflow { size }) if size as u64 > REGION_SIZE
        ));
    }

    #[test]
    fn a_region_must_be_reachable_by_32_bit_pointers() {
        let set = TableSet::new(&Machine::bare(processors(1))).unwrap();
        for base in [0x1_9001, FOUR_GIB - 4096, FOUR_GIB, u64::MAX - 4095] {
            assert_eq!(set.place(base), Err(BuildError::RegionAddress { base }));
        }
        set.place(FOUR_GIB - REGION_SIZE).unwrap();
    }

    #[test]
    fn impossible_machines_are_refused() {
        let refused = |change: &dyn Fn(&mut Machine)| {
            let mut machine = full(processors(2));
            change(&mut machine);
            TableSet::new(&machine).unwrap_err()
        };
        assert_eq!(refused(&|m| m.processors.clear()), BuildError::NoProcessors);
        assert_eq!(
            refused(&|m| m.processors = processors(4097)),
            BuildError::TooManyProcessors { count: 4097 }
        );
        assert_eq!(
            refused(&|m| m.processors[1].uid = 1),
            BuildError::ProcessorUid { uid: 1 }
        );
        assert_eq!(
            refused(&|m| m.processors[1].apic_id = 0),
            BuildError::ApicId { apic_id: 0 }
        );
        assert_eq!(
            refused(&|m| m.com_ports[1].number = 1),
            BuildError::ComNumber { number: 1 }
        );
        assert!(matches!(
            refused(&|m| m.pm_base = 0xfff0),
            BuildError::Ports { .. }
        ));
        assert!(matches!(
            refused(&|m| m.sci_irq = 16),
            BuildError::Irq { irq: 16, .. }
        ));
        assert!(matches!(
            refused(&|m| m.mmio.low = Some(0x1000..0x1000)),
            BuildError::MmioWindow { .. }
        ));
    }

    proptest! {
        #[test]
        fn any_processors_make_sound_tables(
            ids in proptest::collection::btree_map(0..u32::MAX, 0..u32::MAX, 1..40),
            base in 0u64..0xf_0000,
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let cpus = ids
                .iter()
                .filter(|(_, apic_id)| seen.insert(**apic_id))
                .map(|(uid, apic_id)| Processor { uid: *uid, apic_id: *apic_id })
                .collect();
            let set = TableSet::new(&full(cpus)).unwrap();
            walk(&set.place(base & !0xfff).unwrap());
        }
    }
}
