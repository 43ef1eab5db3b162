//! Reading and validating a record piece by piece.

use super::contents::Record;
use super::contents::RecordSection;
use super::contents::SectionKind;
use super::decode::decode_header;
use super::decode::decode_table;
use super::error::RecordError;
use crate::image::FirmwareTarget;
use crate::image::PinnedFiles;
use platform_digest::Digest;
use platform_digest::PlatformView;
use sha2::Digest as _;
use sha2::Sha256;
use std::io;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;

/// A piece of the content of a section.
#[derive(Debug, Clone, Copy)]
pub struct SectionData<'a> {
    /// The section.
    pub section: &'a RecordSection,
    /// Its index in the section table. The parts of the image have the indices from 0.
    pub index: usize,
    /// Offset of the bytes in the section.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Receives the content of a record while it is read.
pub trait RecordVisitor {
    /// The validated header and section table. Called first.
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        let _ = record;
        Ok(())
    }

    /// The next bytes of a section, in order. Their digest has not been checked yet.
    fn data(&mut self, data: SectionData<'_>) -> Result<(), RecordError> {
        let _ = data;
        Ok(())
    }
}

/// Ignores the content, to validate a record only.
impl RecordVisitor for () {}

/// How the content of sections is verified.
enum Verification {
    /// Against the digests in the section table.
    Digests(Sha256),
    /// Against the checksums of an earlier read that compared the digests.
    Checksums(Vec<u32>),
}

enum Stage {
    Header,
    Table(Box<FirmwareRecordHeader>),
    Sections(Record),
}

/// Validates a record while it is read. Keeps only header and section table.
pub struct RecordReader {
    /// Length of the file in bytes.
    len: u64,
    /// The number of bytes read so far.
    seen: u64,
    stage: Stage,
    /// The header or the section table, as far as it was read.
    buffer: Vec<u8>,
    section: usize,
    offset: u64,
    verification: Verification,
    crc: crc32fast::Hasher,
    checksums: Vec<u32>,
}

impl RecordReader {
    /// For a file of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self::with(len, Verification::Digests(Sha256::new()))
    }

    /// For a file that an earlier read found valid, with the checksums that it returned: checks that the content
    /// is the same, which is faster than computing digests.
    pub fn again(len: u64, checksums: Vec<u32>) -> Self {
        Self::with(len, Verification::Checksums(checksums))
    }

    fn with(len: u64, verification: Verification) -> Self {
        Self {
            len,
            seen: 0,
            stage: Stage::Header,
            buffer: Vec::new(),
            section: 0,
            offset: 0,
            verification,
            crc: crc32fast::Hasher::new(),
            checksums: Vec::new(),
        }
    }

    /// Takes the next bytes of the file.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        visitor: &mut dyn RecordVisitor,
    ) -> Result<(), RecordError> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        loop {
            match &self.stage {
                Stage::Header => {
                    if !fill(&mut self.buffer, &mut bytes, FIRMWARE_RECORD_HEADER_LEN) {
                        return Ok(());
                    }
                    let header = decode_header(&self.buffer)?;
                    if header.record_len.get() != self.len {
                        return Err(RecordError::Length {
                            expected: header.record_len.get(),
                            found: self.len,
                        });
                    }
                    self.buffer.clear();
                    self.stage = Stage::Table(Box::new(header));
                }
                Stage::Table(header) => {
                    // The number of sections was validated.
                    let len = header.section_count.get() as usize * FIRMWARE_RECORD_SECTION_LEN;
                    if !fill(&mut self.buffer, &mut bytes, len) {
                        return Ok(());
                    }
                    let record = decode_table(header, &self.buffer)?;
                    visitor.record(&record)?;
                    self.buffer.clear();
                    self.stage = Stage::Sections(record);
                }
                Stage::Sections(record) => {
                    let Some(section) = record.sections.get(self.section) else {
                        return if bytes.is_empty() {
                            Ok(())
                        } else {
                            Err(self.wrong_length())
                        };
                    };
                    let count = (section.len - self.offset).min(bytes.len() as u64) as usize;
                    let (piece, rest) = bytes.split_at(count);
                    bytes = rest;
                    if count != 0 {
                        if let Verification::Digests(hasher) = &mut self.verification {
                            hasher.update(piece);
                        }
                        self.crc.update(piece);
                        visitor.data(SectionData {
                            section,
                            index: self.section,
                            offset: self.offset,
                            bytes: piece,
                        })?;
                    }
                    self.offset += count as u64;
                    if self.offset < section.len {
                        return Ok(());
                    }
                    self.end_of_section()?;
                }
            }
        }
    }

    fn end_of_section(&mut self) -> Result<(), RecordError> {
        let Stage::Sections(record) = &self.stage else {
            return Ok(());
        };
        let section = &record.sections[self.section];
        let crc = std::mem::take(&mut self.crc).finalize();
        match &mut self.verification {
            Verification::Digests(hasher) => {
                if Digest(hasher.finalize_reset().into()) != section.digest {
                    return Err(RecordError::SectionDigest(section.name.clone()));
                }
            }
            Verification::Checksums(checksums) => {
                if checksums.get(self.section) != Some(&crc) {
                    return Err(RecordError::Changed(section.name.clone()));
                }
            }
        }
        self.checksums.push(crc);
        self.section += 1;
        self.offset = 0;
        Ok(())
    }

    /// The header and section table, once they were read and validated.
    pub fn record(&self) -> Option<&Record> {
        match &self.stage {
            Stage::Sections(record) => Some(record),
            Stage::Header | Stage::Table(_) => None,
        }
    }

    fn wrong_length(&self) -> RecordError {
        let expected = match &self.stage {
            Stage::Sections(record) => record.len,
            Stage::Header | Stage::Table(_) => self.len,
        };
        RecordError::Length {
            expected,
            found: self.seen,
        }
    }

    /// Ends the read, after all bytes: the record, and the checksums for reading it [again](RecordReader::again).
    pub fn finish(self) -> Result<(Record, Vec<u32>), RecordError> {
        let error = self.wrong_length();
        match self.stage {
            Stage::Sections(record) if self.section == record.sections.len() => {
                Ok((record, self.checksums))
            }
            Stage::Header
                if !self.buffer.starts_with(&FirmwareRecordHeader::MAGIC) || self.len == 0 =>
            {
                Err(RecordError::NotARecord)
            }
            _ => Err(error),
        }
    }
}

/// Moves bytes to `buffer` until its length is `len`. Returns whether it is.
fn fill(buffer: &mut Vec<u8>, bytes: &mut &[u8], len: usize) -> bool {
    let count = (len - buffer.len()).min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    buffer.extend_from_slice(taken);
    *bytes = rest;
    buffer.len() == len
}

/// Keeps the platform view and the pinned files.
#[derive(Default)]
pub struct Collector {
    platform: Vec<u8>,
    pinned: PinnedFiles,
}

/// The result of a [`Collector`].
#[derive(Debug)]
pub struct Collected {
    /// The machine that the guest hibernated on.
    pub platform: PlatformView,
    /// The files that the firmware was given.
    pub pinned: PinnedFiles,
}

impl Collector {
    /// What was collected. Call it only after [`RecordReader::finish`] succeeded.
    pub fn finish(self) -> Result<Collected, RecordError> {
        Ok(Collected {
            platform: PlatformView::decode(&self.platform).map_err(RecordError::Platform)?,
            pinned: self.pinned,
        })
    }
}

impl RecordVisitor for Collector {
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        // An empty section has no data.
        for section in &record.sections {
            if section.kind == SectionKind::Pinned {
                self.pinned.insert(section.name.clone(), Vec::new());
            }
        }
        Ok(())
    }

    fn data(&mut self, data: SectionData<'_>) -> Result<(), RecordError> {
        let section = data.section;
        let buffer = match section.kind {
            SectionKind::ImagePart => return Ok(()),
            SectionKind::Platform => &mut self.platform,
            SectionKind::Pinned => self.pinned.entry(section.name.clone()).or_default(),
        };
        if data.offset == 0 {
            // The length was validated.
            buffer
                .try_reserve_exact(section.len as usize)
                .map_err(|_| RecordError::OutOfMemory {
                    name: section.name.clone(),
                    len: section.len,
                })?;
        }
        buffer.extend_from_slice(data.bytes);
        Ok(())
    }
}

/// Writes the image to a target.
pub(crate) struct Restorer<'a>(pub(crate) &'a mut dyn FirmwareTarget);

impl RecordVisitor for Restorer<'_> {
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        self.0.prepare(&record.parts()).map_err(RecordError::Target)
    }

    fn data(&mut self, data: SectionData<'_>) -> Result<(), RecordError> {
        if data.section.kind != SectionKind::ImagePart {
            return Ok(());
        }
        self.0
            .write(data.index, data.offset, data.bytes)
            .map_err(RecordError::Target)
    }
}

/// Writes the bare image to a file, one part after the other.
pub struct ImageWriter<'a>(pub &'a mut dyn io::Write);

impl RecordVisitor for ImageWriter<'_> {
    fn data(&mut self, data: SectionData<'_>) -> Result<(), RecordError> {
        match data.section.kind {
            SectionKind::ImagePart => {
                (self.0.write_all(data.bytes)).map_err(|error| RecordError::Target(error.into()))
            }
            SectionKind::Platform | SectionKind::Pinned => Ok(()),
        }
    }
}
