//! Payloads in the memory of a guest that is about to start.

use crate::ImageLoad;
use crate::ImportError;
use crate::PageData;
use crate::PageImport;
use crate::PageKind;
use crate::Parameter;
use crate::ParameterArea;
use crate::Piece;
use crate::VpRegister;
use guest_memory::MemoryRange;
use std::collections::BTreeMap;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::Permissions;

/// How much is compared with zero at a time, in bytes.
const CLEAR_CHUNK: usize = 64 << 10;

/// The registers that a payload sets, by VP index. All others are as after reset.
pub type VpRegisters = BTreeMap<u32, Vec<VpRegister>>;

/// Loads a payload into guest memory.
///
/// Pages of RAM are written; pages of ROM and registers are kept for the machine, which has the flash devices
/// and the VPs.
#[derive(Debug)]
pub struct GuestImage<'a, M> {
    memory: &'a M,
    /// What has been imported, by first address.
    imported: BTreeMap<u64, (&'static str, MemoryRange)>,
    roms: Vec<PageImport>,
    registers: VpRegisters,
}

impl<'a, M: GuestMemory> GuestImage<'a, M> {
    /// An image in `memory`, with nothing imported.
    pub fn new(memory: &'a M) -> Self {
        Self {
            memory,
            imported: BTreeMap::new(),
            roms: Vec::new(),
            registers: VpRegisters::new(),
        }
    }

    /// The ROMs that were imported.
    pub fn roms(&self) -> &[PageImport] {
        &self.roms
    }

    /// The registers that were imported.
    pub fn into_registers(self) -> VpRegisters {
        self.registers
    }

    /// Records the import of `what`, unless something else is there.
    fn claim(&mut self, what: &'static str, range: MemoryRange) -> Result<(), ImportError> {
        match self.imported.range(..range.end).next_back() {
            Some((_, &(other, other_range))) if other_range.end > range.start => {
                Err(ImportError::Overlap {
                    what,
                    range,
                    other,
                    other_range,
                })
            }
            _ => {
                self.imported.insert(range.start, (what, range));
                Ok(())
            }
        }
    }

    fn write(&self, what: &'static str, gpa: u64, bytes: &[u8]) -> Result<(), ImportError> {
        self.memory
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|source| ImportError::Write { what, gpa, source })
    }

    /// Makes the memory from `start` to `end` zero, touching only what is not: memory that was never written
    /// stays unallocated.
    fn clear(&self, what: &'static str, start: u64, end: u64) -> Result<(), ImportError> {
        let mut buf = vec![0; CLEAR_CHUNK.min((end - start) as usize)];
        let mut gpa = start;
        while gpa < end {
            let len = buf.len().min((end - gpa) as usize);
            let chunk = &mut buf[..len];
            self.memory
                .read_slice(chunk, GuestAddress(gpa))
                .map_err(|source| ImportError::Write { what, gpa, source })?;
            if chunk.iter().any(|byte| *byte != 0) {
                chunk.fill(0);
                self.write(what, gpa, chunk)?;
            }
            gpa += len as u64;
        }
        Ok(())
    }
}

impl<M: GuestMemory> ImageLoad for GuestImage<'_, M> {
    fn require_memory(
        &mut self,
        what: &'static str,
        range: MemoryRange,
    ) -> Result<(), ImportError> {
        let (start, len) = (GuestAddress(range.start), range.len() as usize);
        self.memory
            .check_range(start, len, Permissions::Write)
            .then_some(())
            .ok_or(ImportError::NoRam { what, range })
    }

    fn import_pages(&mut self, pages: &PageImport) -> Result<(), ImportError> {
        pages.check()?;
        let (what, range) = (pages.what, pages.range);
        self.claim(what, range)?;
        if pages.kind == PageKind::Rom {
            self.roms.push(pages.clone());
            return Ok(());
        }
        let mut filled = range.start;
        for Piece { offset, data } in &pages.content {
            let gpa = range.start + offset;
            self.clear(what, filled, gpa)?;
            match data {
                PageData::Bytes(bytes) => self.write(what, gpa, bytes)?,
                PageData::Part(bytes, range) => self.write(what, gpa, &bytes[range.clone()])?,
                PageData::File { file, offset, len } => {
                    file.read_into(self.memory, *offset, gpa, *len)?;
                }
            }
            filled = gpa + data.len();
        }
        self.clear(what, filled, range.end)
    }

    fn create_parameter_area(&mut self, area: ParameterArea) -> Result<(), ImportError> {
        let ParameterArea { what, range } = area;
        self.claim(what, range)?;
        self.clear(what, range.start, range.end)
    }

    fn import_parameter(
        &mut self,
        area: ParameterArea,
        offset: u64,
        parameter: Parameter<'_>,
    ) -> Result<(), ImportError> {
        let ParameterArea { what, range } = area;
        let bytes = match parameter {
            Parameter::CommandLine(line) => &[line.as_bytes(), b"\0"].concat(),
            Parameter::Bytes(bytes) => bytes,
        };
        match offset.checked_add(bytes.len() as u64) {
            Some(end) if end <= range.len() => self.write(what, range.start + offset, bytes),
            _ => Err(ImportError::Content { what, range }),
        }
    }

    fn import_register(&mut self, vp: u32, register: VpRegister) -> Result<(), ImportError> {
        self.registers.entry(vp).or_default().push(register);
        Ok(())
    }
}

#[cfg(test)]
#[path = "guest_image_test.rs"]
mod tests;
