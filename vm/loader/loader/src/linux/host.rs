//! What a machine adds to a kernel that it starts: the same for every kernel.

use super::LoadError;
use super::cpu;
use super::layout;
use super::plan::bytes;
use crate::BSP;
use crate::ImageLoad;
use crate::ImportError;
use crate::PageImport;
use crate::VpRegister;
use crate::mtrr::mtrrs;
use acpi_spec::TableSet;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;

/// The ACPI tables, and the registers that depend on the machine or have no place in the VP context of an image file:
/// the task register and the MTRRs.
#[derive(Debug, Clone)]
pub struct LinuxHost {
    imports: Vec<PageImport>,
    registers: Vec<VpRegister>,
}

impl LinuxHost {
    /// What a machine with this memory layout and these tables adds. Its physical addresses have `address_bits` bits.
    pub fn new(
        memory_layout: &MemoryLayout,
        address_bits: u8,
        acpi: &TableSet,
    ) -> Result<Self, LoadError> {
        let acpi = acpi.place(layout::ACPI_TABLES)?;
        let mut tables = bytes("the ACPI tables", layout::ACPI_TABLES, acpi.bytes);
        tables.range.end = layout::ACPI_TABLES_END;
        let rsdp = bytes("the ACPI root pointer", layout::RSDP, acpi.rsdp);
        let mut registers = vec![VpRegister::Tr(cpu::TASK)];
        registers.extend(mtrrs(memory_layout.low_mmio(), address_bits));
        Ok(Self {
            imports: vec![tables, rsdp],
            registers,
        })
    }

    /// Leaves registers as they are that `set` holds already: the task register, and the MTRRs if any of them is set.
    pub fn without(&mut self, set: &[VpRegister]) {
        let is_mtrr =
            |register: &VpRegister| matches!(register, VpRegister::Msr(0x200..=0x26f | 0x2ff, _));
        let is_task = |register: &VpRegister| matches!(register, VpRegister::Tr(_));
        let (mtrr, task) = (set.iter().any(is_mtrr), set.iter().any(is_task));
        self.registers
            .retain(|own| !(mtrr && is_mtrr(own) || task && is_task(own)));
    }

    /// The pages that are imported, with what goes there.
    pub fn placements(&self) -> impl Iterator<Item = (&'static str, MemoryRange)> {
        self.imports
            .iter()
            .map(|import| (import.what, import.range))
    }

    /// Imports everything into `image`.
    pub fn load(&self, image: &mut dyn ImageLoad) -> Result<(), ImportError> {
        for import in &self.imports {
            image.import_pages(import)?;
        }
        for register in &self.registers {
            image.import_register(BSP, *register)?;
        }
        Ok(())
    }
}
