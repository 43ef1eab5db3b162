//! The one way that a payload takes to its destination.

use crate::ImageFile;
use crate::ImageFileError;
use crate::VpRegister;
use guest_memory::MemoryRange;
use std::ops::Range;
use std::sync::Arc;
use vm_memory::GuestMemoryError;

/// Takes what a payload consists of: pages, parameters and VP registers.
///
/// A payload, such as a Linux kernel or an OVMF image, knows only this trait. [`crate::GuestImage`] loads into
/// a guest that is about to start; a generator of IGVM files packs the same calls into a file, so that the
/// file holds what direct boot loads, byte for byte.
///
/// Ranges are of whole pages. No two imports and parameter areas may overlap.
pub trait ImageLoad {
    /// Requires the guest to have RAM at all of `range`, for `what`. A payload states all that it needs before
    /// it imports anything, so that nothing is written into a guest that lacks RAM. In an IGVM file this is
    /// `REQUIRED_MEMORY`.
    fn require_memory(&mut self, what: &'static str, range: MemoryRange)
    -> Result<(), ImportError>;

    /// Imports pages. In an IGVM file each page is a `PAGE_DATA`.
    fn import_pages(&mut self, pages: &PageImport) -> Result<(), ImportError>;

    /// Makes the RAM of `area` zero, for parameters to be put into it. In an IGVM file this is `PARAMETER_AREA`,
    /// with the `PARAMETER_INSERT` that places it.
    fn create_parameter_area(&mut self, area: ParameterArea) -> Result<(), ImportError>;

    /// Puts a parameter at `offset` bytes into an area that was created. In an IGVM file this is the parameter's
    /// own record.
    fn import_parameter(
        &mut self,
        area: ParameterArea,
        offset: u64,
        parameter: Parameter<'_>,
    ) -> Result<(), ImportError>;

    /// Sets a register of the VP with the index `vp` before its first instruction. Registers that are not
    /// imported are as after reset. In an IGVM file this is part of the VP's `VP_CONTEXT`.
    fn import_register(&mut self, vp: u32, register: VpRegister) -> Result<(), ImportError>;
}

/// Pages to be imported, with their content.
#[derive(Debug, Clone)]
pub struct PageImport {
    /// What the pages hold, for messages.
    pub what: &'static str,
    /// Where they go.
    pub range: MemoryRange,
    /// What they are to the guest.
    pub kind: PageKind,
    /// Their content, ascending by offset. What no piece covers is zero.
    pub content: Vec<Piece>,
}

/// What imported pages are to the guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PageKind {
    /// RAM that is the guest's own; part of the launch measurement of an isolated guest.
    Ram,
    /// ROM, such as firmware in flash memory: not part of the guest's RAM.
    Rom,
}

/// A part of the content of imported pages.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Offset into the pages, in bytes.
    pub offset: u64,
    /// The bytes from there.
    pub data: PageData,
}

/// Where the bytes of a [`Piece`] come from.
#[derive(Debug, Clone)]
pub enum PageData {
    /// From memory.
    Bytes(Arc<[u8]>),
    /// A part of bytes in memory.
    Part(Arc<[u8]>, Range<usize>),
    /// From a file; a sink that writes guest memory reads them straight into it.
    File {
        /// The file.
        file: Arc<ImageFile>,
        /// Offset into the file, in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// RAM for parameters.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ParameterArea {
    /// What the area holds, for messages.
    pub what: &'static str,
    /// Its pages.
    pub range: MemoryRange,
}

/// A value that an image file leaves to whoever starts it. A sink that starts the guest itself takes the value
/// given here.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// The kernel's command line, without NUL; it is followed by one in memory.
    CommandLine(&'a str),
    /// Bytes as they are: what an image file puts into an area itself, and what was made of its records. In an IGVM
    /// file these are the area's initial content.
    Bytes(&'a [u8]),
}

/// Why a payload cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file of the payload cannot be read.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// The guest has no RAM where the payload needs it.
    #[error("guest memory has no RAM at {range}, where {what} goes")]
    NoRam {
        /// What was to go there.
        what: &'static str,
        /// Where it goes.
        range: MemoryRange,
    },
    /// A payload's parts overlap.
    #[error("{what} at {range} overlaps {other} at {other_range}")]
    Overlap {
        /// What was to be imported.
        what: &'static str,
        /// Where it goes.
        range: MemoryRange,
        /// What is there already.
        other: &'static str,
        /// Where that is.
        other_range: MemoryRange,
    },
    /// The content is not inside the pages it is for, or those are not whole pages.
    #[error("the content of {what} does not fit its pages at {range}")]
    Content {
        /// What was to be imported.
        what: &'static str,
        /// Its pages.
        range: MemoryRange,
    },
    /// Guest memory cannot be written.
    #[error("cannot write {what} to guest memory at {gpa:#x}")]
    Write {
        /// What was being written.
        what: &'static str,
        /// The guest-physical address.
        gpa: u64,
        /// What failed.
        source: GuestMemoryError,
    },
}

impl PageImport {
    /// Checks that the range is of whole pages, and that the pieces ascend, do not overlap and are inside it.
    pub fn check(&self) -> Result<(), ImportError> {
        let range = self.range;
        let mut fits = range.start < range.end
            && range.start.is_multiple_of(crate::PAGE)
            && range.end.is_multiple_of(crate::PAGE);
        let mut end = 0;
        for piece in &self.content {
            fits &= piece.offset >= end;
            end = piece.offset.saturating_add(piece.data.len());
        }
        let what = self.what;
        (fits && end <= range.len())
            .then_some(())
            .ok_or(ImportError::Content { what, range })
    }

    /// The bytes of all the pages, for a sink that packs them. The caller bounds their number.
    pub fn read(&self) -> Result<Vec<u8>, ImportError> {
        self.check()?;
        let mut bytes = vec![0; self.range.len() as usize];
        for Piece { offset, data } in &self.content {
            let at = *offset as usize;
            let part = &mut bytes[at..at + data.len() as usize];
            match data {
                PageData::Bytes(data) => part.copy_from_slice(data),
                PageData::Part(data, range) => part.copy_from_slice(&data[range.clone()]),
                PageData::File { file, offset, .. } => file.read_at(*offset, part)?,
            }
        }
        Ok(bytes)
    }
}

impl PageData {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(_, range) => range.len() as u64,
            Self::File { len, .. } => *len,
        }
    }
}
