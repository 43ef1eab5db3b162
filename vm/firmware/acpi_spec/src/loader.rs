//! Tables for firmware that places them itself, with a table-loader script (QEMU's `bios-linker-loader`; OVMF's
//! `QemuLoader.h`).
//!
//! A script consists of commands of 128 bytes. The firmware allocates memory for files, adds the address of a file to
//! fields that hold an offset in the file, and computes checksums.

use crate::AcpiError;
use crate::TableSet;
use crate::generation_id;
use crate::generation_id::GENERATION_ID_OFFSET;
use crate::table::Table;

/// The file with the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

/// The file with the RSDP.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";

/// The file with the script.
pub const SCRIPT_FILE: &str = "etc/table-loader";

/// The file that is loaded as the memory of the generation ID.
pub const GENERATION_ID_FILE: &str = "etc/vmgenid_guid";

/// The file to which the firmware writes the guest-physical address of the generation ID, little-endian. The VMM
/// provides it, writable and [`GENERATION_ID_ADDRESS_LEN`] bytes long.
pub const GENERATION_ID_ADDRESS_FILE: &str = "etc/vmgenid_addr";

/// The size of [`GENERATION_ID_ADDRESS_FILE`], in bytes.
pub const GENERATION_ID_ADDRESS_LEN: usize = 8;

/// The generation ID has a page of its own, so that an operating system can map it alone.
const GENERATION_ID_LEN: usize = 4096;

const COMMAND_LEN: usize = 128;
const NAME_LEN: usize = 56;

/// The memory zone of a file.
#[derive(Copy, Clone)]
enum Zone {
    High = 1,
    /// Below 1 MiB, where an operating system that was not started by UEFI looks for the RSDP.
    FSegment = 2,
}

/// A file that the firmware reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFile {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl TableSet {
    /// The files from which a firmware builds the tables: [`SCRIPT_FILE`], [`RSDP_FILE`], [`TABLES_FILE`] and,
    /// where there is a generation ID, [`GENERATION_ID_FILE`] (the script then writes to
    /// [`GENERATION_ID_ADDRESS_FILE`]).
    pub fn loader_files(&self) -> Result<Vec<LoaderFile>, AcpiError> {
        let (offsets, size) = self.offsets();
        // Offsets in the script have 32 bits.
        if u32::try_from(size).is_err() {
            return Err(AcpiError::LoaderOverflow { size });
        }
        let mut script = Script(Vec::new());
        let alignment = self.tables().iter().map(|t| t.alignment).max();
        script.allocate(TABLES_FILE, alignment.unwrap_or(1), Zone::High);
        script.allocate(RSDP_FILE, self.rsdp().alignment, Zone::FSegment);

        let generation_id = self.generation_id_table();
        if generation_id.is_some() {
            script.allocate(GENERATION_ID_FILE, GENERATION_ID_LEN, Zone::High);
        }
        let mut tables = vec![0; size];
        for (index, (table, at)) in self.tables().iter().zip(&offsets).enumerate() {
            let bytes = script.relocate(TABLES_FILE, *at, table, &offsets);
            tables[*at..*at + bytes.len()].copy_from_slice(&bytes);
            if generation_id == Some(index) {
                let (field, len) = generation_id::address_field(table);
                script.add_pointer(TABLES_FILE, at + field, len, GENERATION_ID_FILE);
            }
        }
        let rsdp = script.relocate(RSDP_FILE, 0, self.rsdp(), &offsets);

        // Checksums last, when the bytes do not change any more.
        for (table, at) in self.tables().iter().zip(&offsets) {
            script.add_checksums(TABLES_FILE, *at, table);
        }
        script.add_checksums(RSDP_FILE, 0, self.rsdp());

        let mut files = vec![
            LoaderFile {
                name: TABLES_FILE,
                bytes: tables,
            },
            LoaderFile {
                name: RSDP_FILE,
                bytes: rsdp,
            },
        ];
        if generation_id.is_some() {
            script.write_generation_id_address();
            files.push(LoaderFile {
                name: GENERATION_ID_FILE,
                // The ID is written when its address is known.
                bytes: vec![0; GENERATION_ID_LEN],
            });
        }
        files.insert(
            0,
            LoaderFile {
                name: SCRIPT_FILE,
                bytes: script.0,
            },
        );
        Ok(files)
    }
}

/// The commands so far.
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, kind: u32, fields: &[(usize, &[u8])]) {
        let mut command = [0; COMMAND_LEN];
        command[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, bytes) in fields {
            command[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        self.0.extend_from_slice(&command);
    }

    fn allocate(&mut self, file: &'static str, alignment: usize, zone: Zone) {
        let fields: [(usize, &[u8]); 3] = [
            (4, name(file)),
            (60, &(alignment as u32).to_le_bytes()),
            (64, &[zone as u8]),
        ];
        self.command(1, &fields);
    }

    /// Adds the address of `pointee` to the `size` bytes at `offset` of `file`.
    fn add_pointer(
        &mut self,
        file: &'static str,
        offset: usize,
        size: usize,
        pointee: &'static str,
    ) {
        let fields: [(usize, &[u8]); 4] = [
            (4, name(file)),
            (60, name(pointee)),
            (116, &(offset as u32).to_le_bytes()),
            (120, &[size as u8]),
        ];
        self.command(2, &fields);
    }

    fn add_checksum(&mut self, file: &'static str, result: usize, start: usize, length: usize) {
        let fields: [(usize, &[u8]); 4] = [
            (4, name(file)),
            (60, &(result as u32).to_le_bytes()),
            (64, &(start as u32).to_le_bytes()),
            (68, &(length as u32).to_le_bytes()),
        ];
        self.command(3, &fields);
    }

    fn write_generation_id_address(&mut self) {
        let fields: [(usize, &[u8]); 4] = [
            (4, name(GENERATION_ID_ADDRESS_FILE)),
            (60, name(GENERATION_ID_FILE)),
            // At the start of the file; the address of the ID in its memory.
            (120, &GENERATION_ID_OFFSET.to_le_bytes()),
            (124, &[GENERATION_ID_ADDRESS_LEN as u8]),
        ];
        self.command(4, &fields);
    }

    /// Adds the pointer commands for `table` at offset `at` of `file`. Returns its bytes with offsets in place of
    /// addresses and zeros in place of checksums.
    fn relocate(
        &mut self,
        file: &'static str,
        at: usize,
        table: &Table,
        offsets: &[usize],
    ) -> Vec<u8> {
        let mut bytes = table.bytes.clone();
        for pointer in &table.pointers {
            let offset = (offsets[pointer.target] as u64).to_le_bytes();
            bytes[pointer.offset..pointer.offset + pointer.size]
                .copy_from_slice(&offset[..pointer.size]);
            self.add_pointer(file, at + pointer.offset, pointer.size, TABLES_FILE);
        }
        for checksum in &table.checksums {
            bytes[checksum.offset] = 0;
        }
        bytes
    }

    fn add_checksums(&mut self, file: &'static str, at: usize, table: &Table) {
        for field in &table.checksums {
            self.add_checksum(
                file,
                at + field.offset,
                at + field.covers.start,
                field.covers.len(),
            );
        }
    }
}

/// The bytes of a name in a command, which is zero after them.
fn name(file: &'static str) -> &'static [u8] {
    const {
        assert!(GENERATION_ID_ADDRESS_FILE.len() < NAME_LEN && TABLES_FILE.len() < NAME_LEN);
    }
    file.as_bytes()
}

#[cfg(test)]
#[path = "loader_test.rs"]
mod tests;
