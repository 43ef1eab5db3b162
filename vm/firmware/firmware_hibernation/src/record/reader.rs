//! Reading a record piece by piece.

use super::Record;
use super::RecordError;
use super::SectionKind;
use super::decode::decode_header;
use super::decode::decode_table;
use crate::image::FirmwareTarget;
use crate::image::Pinned;
use platform_digest::Digest;
use platform_digest::PlatformView;
use sha2::Digest as _;
use sha2::Sha256;
use std::io;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;

/// Who is shown what is in a record while it is read.
pub trait RecordVisitor {
    /// Header and table, validated. Comes first.
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        let _ = record;
        Ok(())
    }

    /// Bytes at an offset of a section, in order, not yet known to be what was stored.
    fn data(
        &mut self,
        record: &Record,
        section: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RecordError> {
        let _ = (record, section, offset, bytes);
        Ok(())
    }
}

/// Shows nobody what is in a record, to find out only whether it is sound.
impl RecordVisitor for () {}

/// What the content of sections is compared with.
enum Verification {
    /// The digests of the section table. CRCs are noted on the way.
    Digests(Sha256),
    /// The CRCs of an earlier reading that compared the digests.
    Checksums(Vec<u32>),
}

enum Stage {
    Header,
    Table(Box<FirmwareRecordHeader>),
    Sections(Record),
}

/// Validates a record while its bytes go by. Nothing is kept of it but header and table.
pub struct RecordReader {
    /// Bytes of the file.
    len: u64,
    /// Bytes seen.
    seen: u64,
    stage: Stage,
    /// Bytes of the header or the table, as far as they are there.
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

    /// For a file that was found sound by an earlier reading, which gave these checksums: finds out
    /// quickly whether it still is the same.
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

    /// The next bytes of the file.
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
                    // The number of sections was checked.
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
                        visitor.data(record, self.section, self.offset, piece)?;
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

    /// All bytes were passed: the record, and the checksums for reading it [again](RecordReader::again).
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

/// Moves bytes to `buffer` until it has `len`; says whether it has.
fn fill(buffer: &mut Vec<u8>, bytes: &mut &[u8], len: usize) -> bool {
    let count = (len - buffer.len()).min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    buffer.extend_from_slice(taken);
    *bytes = rest;
    buffer.len() == len
}

/// Keeps the description of the machine and the pinned things, which are small.
#[derive(Default)]
pub struct Collector {
    platform: Vec<u8>,
    pinned: Pinned,
}

/// What a [`Collector`] kept.
#[derive(Debug)]
pub struct Collected {
    /// The machine.
    pub platform: PlatformView,
    /// What the firmware was given.
    pub pinned: Pinned,
}

impl Collector {
    /// What was kept. To be asked for when the whole record turned out to be sound.
    pub fn finish(self) -> Result<Collected, RecordError> {
        Ok(Collected {
            platform: PlatformView::decode(&self.platform).map_err(RecordError::Platform)?,
            pinned: self.pinned,
        })
    }
}

impl RecordVisitor for Collector {
    fn data(
        &mut self,
        record: &Record,
        section: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RecordError> {
        let section = &record.sections[section];
        let buffer = match section.kind {
            SectionKind::ImagePart => return Ok(()),
            SectionKind::Platform => &mut self.platform,
            SectionKind::Pinned => self.pinned.0.entry(section.name.clone()).or_default(),
        };
        if offset == 0 {
            // The lengths were checked against their limits.
            buffer
                .try_reserve_exact(section.len as usize)
                .map_err(|_| RecordError::OutOfMemory {
                    name: section.name.clone(),
                    len: section.len,
                })?;
        }
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        // An empty one has no data to be shown.
        for section in &record.sections {
            if section.kind == SectionKind::Pinned {
                self.pinned.0.insert(section.name.clone(), Vec::new());
            }
        }
        Ok(())
    }
}

/// Passes the image on to the machine.
pub(crate) struct Restorer<'a>(pub(crate) &'a mut dyn FirmwareTarget);

impl RecordVisitor for Restorer<'_> {
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        self.0.prepare(&record.parts()).map_err(RecordError::Target)
    }

    fn data(
        &mut self,
        record: &Record,
        section: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RecordError> {
        match record.sections[section].kind {
            // The parts of the image are the first sections, so that they have the same indices.
            SectionKind::ImagePart => self
                .0
                .write(section, offset, bytes)
                .map_err(RecordError::Target),
            SectionKind::Platform | SectionKind::Pinned => Ok(()),
        }
    }
}

/// Writes the bare image, its parts one after the other, as a file.
pub struct ImageWriter<'a>(pub &'a mut dyn io::Write);

impl RecordVisitor for ImageWriter<'_> {
    fn data(
        &mut self,
        record: &Record,
        section: usize,
        _offset: u64,
        bytes: &[u8],
    ) -> Result<(), RecordError> {
        match record.sections[section].kind {
            SectionKind::ImagePart => self
                .0
                .write_all(bytes)
                .map_err(|error| RecordError::Target(error.into())),
            SectionKind::Platform | SectionKind::Pinned => Ok(()),
        }
    }
}
