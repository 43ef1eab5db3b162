//! What goes where: decided and checked as a whole, then imported.

use super::EntryProtocol;
use super::KernelError;
use super::LinuxHost;
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
use super::kernel::KernelSegment;
use super::layout;
use super::layout::page_down;
use super::layout::page_up;
use super::pvh;
use crate::BSP;
use crate::ImageFile;
use crate::ImageLoad;
use crate::ImportError;
use crate::PageData;
use crate::PageImport;
use crate::PageKind;
use crate::Parameter;
use crate::ParameterArea;
use crate::Piece;
use crate::VpRegister;
use crate::page_tables::identity_4gib;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use std::ops::Range;
use std::sync::Arc;

/// The command line is a parameter, so that an image file can leave it to whoever starts it.
const COMMAND_LINE: ParameterArea = ParameterArea {
    what: "the command line",
    range: MemoryRange {
        start: layout::COMMAND_LINE,
        end: layout::PAGE_TABLES,
    },
};

/// A kernel and what it is booted with.
#[derive(Debug)]
pub struct LinuxImage<'a> {
    /// A bzImage or an ELF vmlinux.
    pub kernel: ImageFile,
    /// The initial RAM disk.
    pub initrd: Option<ImageFile>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// What the machine adds; `None` if the image is loaded by another one.
    pub host: Option<LinuxHost>,
    /// The protocol by which the kernel is entered.
    pub protocol: EntryProtocol,
}

/// A Linux boot that was found to be possible, of which nothing has been imported yet.
///
/// A plan can be carried out again, to reset the guest, as long as its files stay the same.
#[derive(Debug)]
pub struct LinuxPlan {
    imports: Vec<PageImport>,
    command_line: String,
    registers: Vec<VpRegister>,
    host: Option<LinuxHost>,
}

impl LinuxPlan {
    /// Plans the boot of `image` on a machine with this memory layout. Checks everything that can be checked without
    /// guest memory.
    pub fn new(memory_layout: &MemoryLayout, image: LinuxImage<'_>) -> Result<Self, LoadError> {
        let map = layout::memory_map(memory_layout)?;
        let low_ram = layout::low_ram(memory_layout)?;
        let kernel = kernel(&image.kernel, &low_ram, image.protocol)
            .map_err(|problem| LoadError::kernel(image.kernel.path(), problem))?;
        check_command_line(image.cmdline, &kernel)?;
        let initrd_range = image
            .initrd
            .as_ref()
            .map(|file| initrd::place(file, &kernel, memory_layout, &low_ram))
            .transpose()?;
        tracing::debug!(
            kernel = %image.kernel.path().display(),
            entry = ?kernel.entry,
            start = format_args!("{:#x}", kernel.footprint.start),
            end = format_args!("{:#x}", kernel.footprint.end),
            initrd = ?initrd_range,
            "planned a Linux boot"
        );

        let mut imports = vec![bytes("the descriptor table", layout::GDT, cpu::gdt())];
        match kernel.entry {
            Entry::Linux64(_) => imports.extend([
                bytes(
                    "the page tables",
                    layout::PAGE_TABLES,
                    identity_4gib(layout::PAGE_TABLES),
                ),
                bytes(
                    "the boot parameters",
                    layout::BOOT_PARAMS,
                    boot_params(&kernel, &map, initrd_range.as_ref()),
                ),
            ]),
            Entry::Pvh(_) => imports.push(bytes(
                "the PVH start info",
                layout::START_INFO,
                pvh::start_info(&map, initrd_range.as_ref()),
            )),
        }
        imports.extend(kernel_pages(&kernel.segments, image.kernel));
        if let Some((range, file)) = initrd_range.zip(image.initrd) {
            let data = PageData::File {
                len: file.len(),
                offset: 0,
                file: Arc::new(file),
            };
            imports.push(pages("the initrd", range, data));
        }

        Ok(Self {
            imports,
            command_line: image.cmdline.into(),
            registers: cpu::registers(kernel.entry),
            host: image.host,
        })
    }

    /// The pages that the plan imports, with what goes there.
    pub(crate) fn placements(&self) -> impl Iterator<Item = (&'static str, MemoryRange)> {
        self.imports
            .iter()
            .map(|import| (import.what, import.range))
            .chain([(COMMAND_LINE.what, COMMAND_LINE.range)])
            .chain(self.host.iter().flat_map(LinuxHost::placements))
    }

    /// Imports everything into `image`, from the files that the plan was made of.
    pub fn load(&self, image: &mut dyn ImageLoad) -> Result<(), ImportError> {
        for (what, range) in self.placements() {
            image.require_memory(what, range)?;
        }
        for import in &self.imports {
            image.import_pages(import)?;
        }
        image.create_parameter_area(COMMAND_LINE)?;
        image.import_parameter(COMMAND_LINE, 0, Parameter::CommandLine(&self.command_line))?;
        for register in &self.registers {
            image.import_register(BSP, *register)?;
        }
        match &self.host {
            Some(host) => host.load(image),
            None => Ok(()),
        }
    }
}

fn kernel(
    file: &ImageFile,
    low_ram: &Range<u64>,
    protocol: EntryProtocol,
) -> Result<Kernel, KernelError> {
    let (kind, head) = identify(file)?;
    match (kind, protocol) {
        (KernelKind::Elf, _) => elf::parse(file, &head, low_ram, protocol),
        (KernelKind::BzImage, EntryProtocol::Pvh) => Err(KernelError::NoPvhEntry {
            reason: "it is a bzImage, and only the ELF file inside it can have one",
        }),
        (KernelKind::BzImage, EntryProtocol::Auto | EntryProtocol::Linux64) => {
            bzimage::parse(file.len(), &head, low_ram)
        }
    }
}

/// Refuses a command line that the kernel would cut off.
fn check_command_line(line: &str, kernel: &Kernel) -> Result<(), LoadError> {
    // One byte is for the NUL.
    let limit = kernel
        .cmdline_limit
        .min((COMMAND_LINE.range.len() - 1) as usize);
    if line.len() > limit {
        return Err(LoadError::CommandLineTooLong {
            len: line.len(),
            limit,
        });
    }
    match line.bytes().position(|byte| byte == 0) {
        Some(position) => Err(LoadError::CommandLineNul { position }),
        None => Ok(()),
    }
}

/// The pages that `range` is in, with `data` from the range's start.
fn pages(what: &'static str, range: Range<u64>, data: PageData) -> PageImport {
    let start = page_down(range.start);
    PageImport {
        what,
        range: MemoryRange {
            start,
            end: page_up(range.end).unwrap_or(range.end),
        },
        kind: PageKind::Ram,
        content: vec![Piece {
            offset: range.start - start,
            data,
        }],
    }
}

pub(super) fn bytes(what: &'static str, gpa: u64, bytes: Vec<u8>) -> PageImport {
    let range = gpa..gpa + bytes.len() as u64;
    pages(what, range, PageData::Bytes(bytes.into()))
}

/// The kernel's pages. Segments, which ascend, may share a page.
fn kernel_pages(segments: &[KernelSegment], file: ImageFile) -> Vec<PageImport> {
    let file = Arc::new(file);
    let mut imports: Vec<PageImport> = Vec::new();
    for segment in segments {
        let data = PageData::File {
            file: file.clone(),
            offset: segment.file_offset,
            len: segment.file_len,
        };
        let mut next = pages("the kernel", segment.range(), data);
        match imports.last_mut() {
            Some(last) if last.range.end > next.range.start => {
                next.content[0].offset += next.range.start - last.range.start;
                last.content.append(&mut next.content);
                last.range.end = next.range.end.max(last.range.end);
            }
            _ => imports.push(next),
        }
    }
    imports
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
