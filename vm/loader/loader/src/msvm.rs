//! MSVM, the firmware of Hyper-V's generation-2 VMs, which runs from RAM in 64-bit mode.
//!
//! The image is at [`BASE`]. Behind it are page tables, a descriptor table, two empty pages for the firmware's use and
//! the configuration blob; the firmware knows their places from its own size.

use crate::BSP;
use crate::BootSegment;
use crate::DescriptorTable;
use crate::ImageLoad;
use crate::ImportError;
use crate::PAGE;
use crate::PageData;
use crate::PageImport;
use crate::PageKind;
use crate::Piece;
use crate::VpRegister;
use crate::page_tables;
use guest_memory::MemoryRange;
use ovmf_image::FirmwareKind;
use ovmf_image::ImageError;
use ovmf_image::SecError;
use std::sync::Arc;

pub use crate::mtrr::firmware_fixed_mtrrs as fixed_mtrrs;
pub use crate::mtrr::firmware_variable_mtrrs as variable_mtrrs;

/// The guest-physical address at which the image is loaded. It is compiled into the firmware.
pub const BASE: u64 = 0x10_0000;

/// The length of Hyper-V's builds of the image, in bytes.
pub const IMAGE_LEN: u64 = 6 << 20;

/// [`IMAGE_LEN`] in pages.
pub const IMAGE_PAGES: u32 = (IMAGE_LEN / PAGE) as u32;

/// The address of the configuration blob behind an image of [`IMAGE_LEN`].
pub const CONFIG_GPA: u64 = config_gpa(IMAGE_LEN);

/// Empty pages between the descriptor table and the configuration.
const SCRATCH_PAGES: u64 = 2;

/// PE, MP, NE and PG.
const CR0: u64 = 0x8000_0023;
/// PAE, MCE, OSFXSR and OSXMMEXCPT.
const CR4: u64 = 0x660;
/// LME, LMA and NXE.
const EFER: u64 = 0xd00;
/// The flag that always reads 1, and no other.
const RFLAGS: u64 = 1 << 1;
const MSR_PAT: u32 = 0x277;
/// The value at reset.
const PAT: u64 = 0x0007_0406_0007_0406;

const CODE: BootSegment = BootSegment {
    selector: 0x08,
    base: 0,
    limit: u32::MAX,
    attributes: 0xa09b,
};
const DATA: BootSegment = BootSegment {
    selector: 0x10,
    base: 0,
    limit: u32::MAX,
    attributes: 0xc093,
};
/// Null, code, data, null.
const GDT_ENTRIES: usize = 4;

/// An image whose SEC phase was found.
#[derive(Debug, Clone)]
pub struct MsvmImage {
    bytes: Arc<[u8]>,
    sec_gpa: u64,
    entry_gpa: u64,
}

/// Why an image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MsvmError {
    /// It is not firmware.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It is firmware for another kind of machine.
    #[error("it is OVMF, not the firmware of a generation-2 VM of Hyper-V")]
    Ovmf,
    /// Its SEC phase cannot be entered.
    #[error(transparent)]
    Sec(#[from] SecError),
}

impl MsvmImage {
    /// The image `bytes`, which is not trusted. Its size is a number of pages.
    pub fn new(bytes: Arc<[u8]>) -> Result<Self, MsvmError> {
        let sec = match FirmwareKind::recognize(&bytes)? {
            FirmwareKind::Msvm { sec } => sec,
            FirmwareKind::Ovmf(_) => return Err(MsvmError::Ovmf),
        };
        let entry = ovmf_image::sec_entry(&bytes, sec.clone())?;
        Ok(Self {
            bytes,
            sec_gpa: BASE + sec.start as u64,
            entry_gpa: BASE + entry as u64,
        })
    }

    /// The image.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The address of the first instruction.
    pub fn entry_gpa(&self) -> u64 {
        self.entry_gpa
    }

    /// The size of the image in pages.
    pub fn pages(&self) -> u32 {
        // An image has at most 16 MiB.
        (self.bytes.len() as u64 / PAGE) as u32
    }

    /// The address of the configuration blob.
    pub fn config_gpa(&self) -> u64 {
        config_gpa(self.bytes.len() as u64)
    }

    fn tables_gpa(&self) -> u64 {
        BASE + self.bytes.len() as u64
    }

    fn gdt_gpa(&self) -> u64 {
        self.tables_gpa() + page_tables::PAGES as u64 * PAGE
    }

    fn scratch_gpa(&self) -> u64 {
        self.gdt_gpa() + PAGE
    }

    /// Loads the image with all that it starts with. Without `config` there is no configuration blob, and whoever starts
    /// the firmware has to add it with [`load_config`], and its address in R12.
    ///
    /// The boot processor gets all its registers but variable MTRRs, which depend on the machine.
    pub fn load(
        &self,
        image: &mut dyn ImageLoad,
        config: Option<&Arc<[u8]>>,
    ) -> Result<(), ImportError> {
        let config_len = config.map_or(0, |config| config.len() as u64);
        let end = (self.config_gpa() + config_len).next_multiple_of(PAGE);
        image.require_memory("the UEFI firmware", MemoryRange { start: 0, end })?;
        let base = self.tables_gpa();
        for (what, gpa, len, content) in [
            (
                "the UEFI firmware",
                BASE,
                self.bytes.len(),
                Some(self.bytes.clone()),
            ),
            (
                "the firmware's page tables",
                base,
                page_tables::PAGES * PAGE as usize,
                Some(page_tables::identity_4gib(base).into()),
            ),
            (
                "the firmware's GDT",
                self.gdt_gpa(),
                PAGE as usize,
                Some(gdt().into()),
            ),
            (
                "the firmware's empty pages",
                self.scratch_gpa(),
                (SCRATCH_PAGES * PAGE) as usize,
                None,
            ),
        ] {
            image.import_pages(&pages(what, gpa, len, content))?;
        }
        for register in self.registers() {
            image.import_register(BSP, register)?;
        }
        if let Some(config) = config {
            load_config(image, self.config_gpa(), config)?;
            image.import_register(BSP, VpRegister::R12(self.config_gpa()))?;
        }
        Ok(())
    }

    fn registers(&self) -> Vec<VpRegister> {
        let gdt = DescriptorTable {
            base: self.gdt_gpa(),
            limit: (GDT_ENTRIES * 8 - 1) as u16,
        };
        let mut registers = vec![
            VpRegister::Rip(self.entry_gpa),
            VpRegister::Rflags(RFLAGS),
            VpRegister::Rbp(self.sec_gpa),
            // The CPUID leaf of an isolated guest.
            VpRegister::R8(0),
            VpRegister::R9(0),
            VpRegister::R10(0),
            VpRegister::R11(0),
            VpRegister::Cr0(CR0),
            VpRegister::Cr3(self.tables_gpa()),
            VpRegister::Cr4(CR4),
            VpRegister::Efer(EFER),
            VpRegister::Gdtr(gdt),
            VpRegister::Cs(CODE),
            VpRegister::Ds(DATA),
            VpRegister::Es(DATA),
            VpRegister::Fs(DATA),
            VpRegister::Gs(DATA),
            VpRegister::Ss(DATA),
        ];
        registers.extend(memory_types());
        registers
    }
}

/// The boot processor's registers for memory types, without variable MTRRs.
pub fn memory_types() -> Vec<VpRegister> {
    let mut registers = vec![VpRegister::Msr(MSR_PAT, PAT)];
    registers.extend(fixed_mtrrs());
    registers
}

/// The name of the configuration blob in messages.
pub const CONFIG: &str = "the firmware's configuration";

/// The pages at `gpa` that a configuration blob of `len` bytes fills.
pub fn config_range(gpa: u64, len: usize) -> MemoryRange {
    MemoryRange {
        start: gpa,
        end: gpa + (len as u64).next_multiple_of(PAGE),
    }
}

/// Loads the configuration blob to `gpa`.
pub fn load_config(
    image: &mut dyn ImageLoad,
    gpa: u64,
    config: &Arc<[u8]>,
) -> Result<(), ImportError> {
    let len = config_range(gpa, config.len()).len() as usize;
    image.import_pages(&pages(CONFIG, gpa, len, Some(config.clone())))
}

/// The address of the configuration blob behind an image of `len` bytes, its page tables, its GDT and the empty pages.
const fn config_gpa(len: u64) -> u64 {
    BASE + len + (page_tables::PAGES as u64 + 1 + SCRATCH_PAGES) * PAGE
}

fn gdt() -> Vec<u8> {
    let mut entries = [0_u64; GDT_ENTRIES];
    for segment in [CODE, DATA] {
        entries[usize::from(segment.selector / 8)] = segment.descriptor();
    }
    entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

/// `len` bytes of whole pages, with `content` at their start.
fn pages(what: &'static str, gpa: u64, len: usize, content: Option<Arc<[u8]>>) -> PageImport {
    let content = content.into_iter().map(|bytes| Piece {
        offset: 0,
        data: PageData::Bytes(bytes),
    });
    PageImport {
        what,
        range: MemoryRange {
            start: gpa,
            end: gpa + len as u64,
        },
        kind: PageKind::Ram,
        content: content.collect(),
    }
}

#[cfg(test)]
#[path = "msvm_test.rs"]
mod tests;
