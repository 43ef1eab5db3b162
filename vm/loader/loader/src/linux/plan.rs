//! What goes where: decided and checked as a whole, then written.

use super::BootProtocol;
use super::LinuxImage;
use super::LoadError;
use super::boot_params::boot_params;
use super::bzimage;
use super::cpu;
use super::elf;
use super::identify::KernelKind;
use super::identify::identify;
use super::initrd;
use super::kernel::Entry;
use super::kernel::Kernel;
use super::layout;
use super::pvh;
use crate::BootState;
use crate::ImageFile;
use guest_memory::MemoryLayout;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::ops::Range;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::Permissions;
use vm_memory::ReadVolatile;

/// How much is compared with zero at a time, in bytes.
const CLEAR_CHUNK: usize = 64 << 10;

/// A kernel's way into guest memory. Nothing has been written yet.
///
/// A plan can be carried out again, to reset the guest, as long as its files stay the same.
#[derive(Debug)]
pub struct LinuxPlan<F = File> {
    kernel: ImageFile<F>,
    /// What is written besides the initrd.
    placements: Vec<(Placement, Content)>,
    initrd: Option<(Placement, ImageFile<F>)>,
    boot_state: BootState,
}

/// A range of guest memory that a plan writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What goes there.
    pub what: &'static str,
    /// The guest-physical addresses.
    pub range: Range<u64>,
}

/// Where the bytes come from. What a placement has beyond them is zero.
#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Kernel { offset: u64, len: u64 },
}

impl<F: Read + Seek + ReadVolatile> LinuxPlan<F> {
    /// Checks everything that can be checked without guest memory.
    pub fn new(
        memory_layout: &MemoryLayout,
        mut image: LinuxImage<'_, F>,
    ) -> Result<Self, LoadError> {
        let map = layout::memory_map(memory_layout)?;
        let low_ram = layout::low_ram(memory_layout)?;
        let kernel = kernel(&mut image.kernel, &low_ram, image.protocol)?;
        let command_line = command_line(image.cmdline, &kernel)?;
        let initrd = match image.initrd {
            Some(file) => {
                let range =
                    initrd::place(file.path(), file.len(), &kernel, memory_layout, &low_ram)?;
                let what = "the initrd";
                Some((Placement { what, range }, file))
            }
            None => None,
        };
        let initrd_range = initrd.as_ref().map(|(placement, _)| &placement.range);
        let acpi = image.acpi.place(layout::ACPI_TABLES)?;
        tracing::debug!(
            kernel = %image.kernel.path().display(),
            entry = ?kernel.entry,
            start = format_args!("{:#x}", kernel.footprint.start),
            end = format_args!("{:#x}", kernel.footprint.end),
            initrd = ?initrd_range,
            "planned a Linux boot"
        );

        let mut plan = Self {
            kernel: image.kernel,
            placements: Vec::new(),
            initrd: None,
            boot_state: cpu::boot_state(kernel.entry),
        };
        plan.bytes("the descriptor table", layout::GDT, cpu::gdt());
        if let Some(tables) = cpu::page_tables(kernel.entry) {
            plan.bytes("the page tables", layout::PAGE_TABLES, tables);
        }
        plan.bytes("the command line", layout::COMMAND_LINE, command_line);
        match kernel.entry {
            Entry::Linux64(_) => plan.bytes(
                "the boot parameters",
                layout::BOOT_PARAMS,
                boot_params(&kernel, &map, initrd_range),
            ),
            Entry::Pvh(_) => plan.bytes(
                "the PVH start info",
                layout::START_INFO,
                pvh::start_info(&map, initrd_range),
            ),
        }
        plan.push(
            "the ACPI tables",
            layout::ACPI_TABLES..layout::ACPI_TABLES_END,
            Content::Bytes(acpi.bytes),
        );
        plan.bytes("the ACPI root pointer", layout::RSDP, acpi.rsdp);
        for segment in &kernel.segments {
            plan.push(
                "the kernel",
                segment.range(),
                Content::Kernel {
                    offset: segment.file_offset,
                    len: segment.file_len,
                },
            );
        }
        plan.initrd = initrd;
        Ok(plan)
    }

    /// What the plan writes.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        let initrd = self.initrd.iter().map(|(placement, _)| placement);
        self.placements
            .iter()
            .map(|(placement, _)| placement)
            .chain(initrd)
    }

    /// How the boot processor starts.
    pub fn boot_state(&self) -> &BootState {
        &self.boot_state
    }

    /// Writes it all into guest memory, from the files the plan was made of.
    pub fn load<M: GuestMemory>(&mut self, memory: &M) -> Result<BootState, LoadError> {
        for Placement { what, range } in self.placements() {
            if !is_ram(memory, range) {
                return Err(LoadError::NoRam {
                    what,
                    start: range.start,
                    end: range.end,
                });
            }
        }
        for (placement, content) in &self.placements {
            let Placement { what, range } = placement;
            let filled = match content {
                Content::Bytes(bytes) => {
                    memory
                        .write_slice(bytes, GuestAddress(range.start))
                        .map_err(|source| LoadError::Write {
                            what,
                            gpa: range.start,
                            source,
                        })?;
                    bytes.len() as u64
                }
                Content::Kernel { offset, len } => {
                    self.kernel.read_into(memory, *offset, range.start, *len)?;
                    *len
                }
            };
            clear(memory, what, range.start + filled..range.end)?;
        }
        if let Some((Placement { range, .. }, file)) = &mut self.initrd {
            file.read_into(memory, 0, range.start, range.end - range.start)?;
        }
        Ok(self.boot_state.clone())
    }

    fn bytes(&mut self, what: &'static str, gpa: u64, bytes: Vec<u8>) {
        let end = gpa + bytes.len() as u64;
        self.push(what, gpa..end, Content::Bytes(bytes));
    }

    fn push(&mut self, what: &'static str, range: Range<u64>, content: Content) {
        self.placements.push((Placement { what, range }, content));
    }
}

fn kernel<F: Read + Seek>(
    file: &mut ImageFile<F>,
    low_ram: &Range<u64>,
    protocol: BootProtocol,
) -> Result<Kernel, LoadError> {
    let (kind, head) = identify(file)?;
    match (kind, protocol) {
        (KernelKind::Elf, _) => elf::parse(file, &head, low_ram, protocol),
        (KernelKind::BzImage, BootProtocol::Pvh) => Err(LoadError::NoPvhEntry {
            path: file.path().into(),
            reason: "it is a bzImage, and only the ELF file inside it can have one",
        }),
        (KernelKind::BzImage, BootProtocol::Auto | BootProtocol::Linux64) => {
            bzimage::parse(file.path(), file.len(), &head, low_ram)
        }
    }
}

/// The command line with its NUL.
fn command_line(line: &str, kernel: &Kernel) -> Result<Vec<u8>, LoadError> {
    let limit = kernel
        .cmdline_limit
        .min((layout::PAGE_TABLES - layout::COMMAND_LINE - 1) as usize);
    if line.len() > limit {
        return Err(LoadError::CommandLineTooLong {
            len: line.len(),
            limit,
        });
    }
    if let Some(position) = line.bytes().position(|byte| byte == 0) {
        return Err(LoadError::CommandLineNul { position });
    }
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

fn is_ram<M: GuestMemory>(memory: &M, range: &Range<u64>) -> bool {
    usize::try_from(range.end - range.start)
        .is_ok_and(|len| memory.check_range(GuestAddress(range.start), len, Permissions::Write))
}

/// Makes `range` zero, touching only what is not: memory that was never written stays unallocated.
fn clear<M: GuestMemory>(
    memory: &M,
    what: &'static str,
    range: Range<u64>,
) -> Result<(), LoadError> {
    let mut buf = vec![0; CLEAR_CHUNK.min((range.end - range.start) as usize)];
    let mut gpa = range.start;
    while gpa < range.end {
        let len = buf.len().min((range.end - gpa) as usize);
        let chunk = &mut buf[..len];
        let address = GuestAddress(gpa);
        memory
            .read_slice(chunk, address)
            .and_then(|()| {
                if chunk.iter().any(|byte| *byte != 0) {
                    chunk.fill(0);
                    memory.write_slice(chunk, address)?;
                }
                Ok(())
            })
            .map_err(|source| LoadError::Write { what, gpa, source })?;
        gpa += len as u64;
    }
    Ok(())
}
