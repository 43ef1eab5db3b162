//! The PVH protocol: its entry in the ELF notes, and the start info.

use super::KernelError;
use super::kernel::check_in_file;
use super::kernel::header_at;
use super::layout;
use super::layout::MapEntry;
use crate::ImageFile;
use linux_loader::elf;
use linux_loader::elf::Elf64_Nhdr;
use linux_loader::elf::Elf64_Phdr;
use linux_loader::start_info::XEN_HVM_START_MAGIC_VALUE;
use linux_loader::start_info::hvm_memmap_table_entry;
use linux_loader::start_info::hvm_modlist_entry;
use linux_loader::start_info::hvm_start_info;
use std::ops::Range;
use vm_memory::ByteValued;

/// The type of the note that holds the entry, under the name "Xen".
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";
/// The most bytes of notes that are read; a kernel has far fewer.
const MAX_NOTES: u64 = 1 << 20;

/// The version of the start info that has a memory map.
const START_INFO_VERSION: u32 = 1;

/// The PVH entry that the file's notes name, if one does.
pub(super) fn entry(file: &ImageFile, headers: &[Elf64_Phdr]) -> Result<Option<u32>, KernelError> {
    for header in headers.iter().filter(|h| h.p_type == elf::PT_NOTE) {
        check_in_file(
            file,
            "an ELF note segment",
            header.p_offset,
            header.p_filesz,
        )?;
        if header.p_filesz > MAX_NOTES {
            return Err(KernelError::ElfHeader {
                field: "p_filesz",
                value: header.p_filesz,
                expected: "notes must not be more than 0x100000 bytes",
            });
        }
        let mut notes = vec![0; header.p_filesz as usize];
        file.read_at(header.p_offset, &mut notes)?;
        // GNU's property notes are in segments aligned to 8 bytes, all others are aligned to 4.
        let alignment = if header.p_align == 8 { 8 } else { 4 };
        if let Some(entry) = entry_in_notes(header.p_offset, &notes, alignment)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Searches `notes`, which are at `start` in the file.
fn entry_in_notes(start: u64, notes: &[u8], alignment: usize) -> Result<Option<u32>, KernelError> {
    let mut offset = 0;
    while offset < notes.len() {
        let malformed = || KernelError::Notes {
            offset: start + offset as u64,
        };
        let (note, next) = note_at(notes, offset, alignment).ok_or_else(malformed)?;
        if note.kind == XEN_ELFNOTE_PHYS32_ENTRY && note.name == NOTE_NAME {
            return note.address().map(Some).ok_or_else(malformed);
        }
        offset = next;
    }
    Ok(None)
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    description: &'a [u8],
}

impl Note<'_> {
    /// The description as an address below 4 GiB, in 4 or 8 bytes.
    fn address(&self) -> Option<u32> {
        match self.description.len() {
            4 => Some(u32::from_le_bytes(self.description.try_into().ok()?)),
            8 => u32::try_from(u64::from_le_bytes(self.description.try_into().ok()?)).ok(),
            _ => None,
        }
    }
}

/// The note at `offset` and the offset of the next; `None` if the note is incomplete.
fn note_at(notes: &[u8], offset: usize, alignment: usize) -> Option<(Note<'_>, usize)> {
    let header: Elf64_Nhdr = header_at(notes, offset)?;
    let name_start = offset + size_of::<Elf64_Nhdr>();
    let name_end = name_start.checked_add(header.n_namesz as usize)?;
    let description_start = name_end.checked_next_multiple_of(alignment)?;
    let description_end = description_start.checked_add(header.n_descsz as usize)?;
    let note = Note {
        kind: header.n_type,
        name: notes.get(name_start..name_end)?,
        description: notes.get(description_start..description_end)?,
    };
    // The last note's padding may be missing.
    Some((note, description_end.checked_next_multiple_of(alignment)?))
}

/// The bytes of the start info, its module list and its memory map, for [`layout::START_INFO`].
pub(super) fn start_info(map: &[MapEntry], initrd: Option<&Range<u64>>) -> Vec<u8> {
    let modules_at = layout::START_INFO + size_of::<hvm_start_info>() as u64;
    let map_at = modules_at + size_of::<hvm_modlist_entry>() as u64;
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: START_INFO_VERSION,
        flags: 0,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { modules_at } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: layout::RSDP,
        memmap_paddr: map_at,
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    let module = initrd.map_or_else(hvm_modlist_entry::default, |initrd| hvm_modlist_entry {
        paddr: initrd.start,
        size: initrd.end - initrd.start,
        ..Default::default()
    });
    let mut bytes = info.as_slice().to_vec();
    bytes.extend_from_slice(module.as_slice());
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            type_: entry.kind as u32,
            reserved: 0,
        };
        bytes.extend_from_slice(entry.as_slice());
    }
    bytes
}
