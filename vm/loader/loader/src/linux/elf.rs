//! ELF files: vmlinux, and other programs with a PVH entry.

use super::EntryProtocol;
use super::KernelError;
use super::kernel::Entry;
use super::kernel::InitrdReach;
use super::kernel::Kernel;
use super::kernel::KernelSegment;
use super::kernel::check_in_file;
use super::kernel::header_at;
use super::layout::HIGH_RAM;
use super::layout::page_up;
use super::pvh;
use crate::ImageFile;
use linux_loader::elf;
use linux_loader::elf::Elf64_Ehdr;
use linux_loader::elf::Elf64_Phdr;
use std::ops::Range;

/// The most program headers that are read; a kernel has far fewer.
const MAX_PROGRAM_HEADERS: u16 = 128;

/// The limit of an x86 kernel's command line without its NUL. A vmlinux does not state it, and silently
/// cuts off a longer one.
const COMMAND_LINE_LIMIT: usize = 2047;

/// Checks the ELF file that starts with `head`, and that it loads into `ram`.
pub(super) fn parse(
    file: &ImageFile,
    head: &[u8],
    ram: &Range<u64>,
    protocol: EntryProtocol,
) -> Result<Kernel, KernelError> {
    let header = read_header(head)?;
    let program_headers = read_program_headers(file, &header)?;
    let segments = segments(file, &program_headers, ram)?;
    let entry = entry(file, header.e_entry, &program_headers, &segments, protocol)?;
    let start = segments.first().map_or(HIGH_RAM, |s| s.gpa);
    let end = segments.last().map_or(HIGH_RAM, |s| s.range().end);
    Ok(Kernel {
        footprint: start..page_up(end).unwrap_or(end),
        segments,
        entry,
        setup_header: None,
        initrd_reach: match entry {
            Entry::Linux64(_) => InitrdReach::Anywhere,
            Entry::Pvh(_) => InitrdReach::Below(1 << 32),
        },
        cmdline_limit: COMMAND_LINE_LIMIT,
    })
}

fn read_header(head: &[u8]) -> Result<Elf64_Ehdr, KernelError> {
    let wrong = |found: String| KernelError::WrongArchitecture { found };
    let header: Elf64_Ehdr = header_at(head, 0).ok_or(KernelError::Truncated {
        part: "the ELF header",
        end: size_of::<Elf64_Ehdr>() as u64,
        len: head.len() as u64,
    })?;
    if header.e_ident[elf::EI_CLASS] != elf::ELFCLASS64 {
        return Err(wrong("a 32-bit ELF file".into()));
    }
    if header.e_ident[elf::EI_DATA] != elf::ELFDATA2LSB {
        return Err(wrong("a big-endian ELF file".into()));
    }
    if header.e_machine != elf::EM_X86_64 {
        return Err(wrong(match header.e_machine {
            elf::EM_AARCH64 => "an aarch64 ELF file".into(),
            243 => "a RISC-V ELF file".into(),
            other => format!("an ELF file for machine {other}"),
        }));
    }
    let (field, value, expected) = if !matches!(header.e_type, elf::ET_EXEC | elf::ET_DYN) {
        ("e_type", header.e_type, "an executable (2 or 3) is needed")
    } else if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        ("e_phentsize", header.e_phentsize, "it must be 0x38")
    } else if header.e_phnum == 0 || header.e_phnum > MAX_PROGRAM_HEADERS {
        ("e_phnum", header.e_phnum, "it must be 1 to 0x80")
    } else {
        return Ok(header);
    };
    Err(KernelError::ElfHeader {
        field,
        value: value.into(),
        expected,
    })
}

fn read_program_headers(
    file: &ImageFile,
    header: &Elf64_Ehdr,
) -> Result<Vec<Elf64_Phdr>, KernelError> {
    let size = size_of::<Elf64_Phdr>();
    let mut bytes = vec![0; usize::from(header.e_phnum) * size];
    check_in_file(
        file,
        "the table of ELF program headers",
        header.e_phoff,
        bytes.len() as u64,
    )?;
    file.read_at(header.e_phoff, &mut bytes)?;
    Ok((0..bytes.len())
        .step_by(size)
        .filter_map(|offset| header_at(&bytes, offset))
        .collect())
}

/// The loadable segments in the order of their addresses.
fn segments(
    file: &ImageFile,
    headers: &[Elf64_Phdr],
    ram: &Range<u64>,
) -> Result<Vec<KernelSegment>, KernelError> {
    let mut segments = Vec::new();
    for header in headers {
        if header.p_type != elf::PT_LOAD || header.p_memsz == 0 {
            continue;
        }
        if header.p_filesz > header.p_memsz {
            return Err(KernelError::ElfHeader {
                field: "p_filesz",
                value: header.p_filesz,
                expected: "it must not be more than p_memsz",
            });
        }
        check_in_file(file, "an ELF segment", header.p_offset, header.p_filesz)?;
        if header.p_paddr < HIGH_RAM {
            return Err(KernelError::TooLow {
                start: header.p_paddr,
            });
        }
        match header.p_paddr.checked_add(header.p_memsz) {
            Some(end) if end <= ram.end => {}
            _ => {
                return Err(KernelError::TooLarge {
                    start: header.p_paddr,
                    size: header.p_memsz,
                    ram_end: ram.end,
                });
            }
        }
        segments.push(KernelSegment {
            file_offset: header.p_offset,
            file_len: header.p_filesz,
            gpa: header.p_paddr,
            mem_len: header.p_memsz,
        });
    }
    if segments.is_empty() {
        return Err(KernelError::ElfHeader {
            field: "p_type",
            value: 0,
            expected: "there must be a loadable segment (1)",
        });
    }
    segments.sort_by_key(|s| s.gpa);
    match segments.windows(2).find(|w| w[0].range().end > w[1].gpa) {
        Some(w) => Err(KernelError::SegmentsOverlap {
            first: w[0].gpa,
            second: w[1].gpa,
        }),
        None => Ok(segments),
    }
}

/// Chooses between the file's two entries.
fn entry(
    file: &ImageFile,
    entry: u64,
    headers: &[Elf64_Phdr],
    segments: &[KernelSegment],
    protocol: EntryProtocol,
) -> Result<Entry, KernelError> {
    let is_loaded = |address: u64| segments.iter().any(|s| s.range().contains(&address));
    let pvh = match protocol {
        EntryProtocol::Linux64 => None,
        EntryProtocol::Auto | EntryProtocol::Pvh => pvh::entry(file, headers)?,
    };
    match (protocol, pvh) {
        (EntryProtocol::Pvh, None) => Err(KernelError::NoPvhEntry {
            reason: "no ELF note names one (the kernel needs CONFIG_PVH)",
        }),
        (EntryProtocol::Auto, Some(pvh)) if is_loaded(entry) && entry != u64::from(pvh) => {
            Ok(Entry::Linux64(entry))
        }
        (_, Some(pvh)) if is_loaded(pvh.into()) => Ok(Entry::Pvh(pvh)),
        (_, Some(pvh)) => Err(KernelError::Entry { entry: pvh.into() }),
        (_, None) if is_loaded(entry) => Ok(Entry::Linux64(entry)),
        (_, None) => Err(KernelError::Entry { entry }),
    }
}
