//! From an image in the machine to the bytes of a record.

use super::ImageId;
use super::Record;
use super::RecordError;
use super::Section;
use super::SectionKind;
use super::decode;
use super::filetime_now;
use crate::image::Architecture;
use crate::image::EntryRule;
use crate::image::FirmwareDescription;
use crate::image::FirmwareImage;
use crate::image::Pinned;
use crate::image::digest_image;
use crate::image::digest_part;
use platform_digest::Digest;
use platform_digest::InvalidView;
use platform_digest::PlatformView;
use std::io;
use std::sync::Arc;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;
use vmgs_format::FirmwareRecordSection;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

/// The longest image, in bytes: what fits below 4 GiB in an x86 machine's flash window.
pub const MAX_IMAGE_LEN: u64 = 16 << 20;
/// The most bytes of everything a firmware was given.
pub const MAX_PINNED_LEN: u64 = 4 << 20;
/// The most sections of a record.
pub const MAX_SECTIONS: usize = 64;

/// Why there can be no record of what was given.
#[derive(Debug, thiserror::Error)]
pub enum RecordInputError {
    /// The image could not be read.
    #[error("reading part {part} of the firmware image failed")]
    Read {
        /// Its name.
        part: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The description of the machine cannot be stored.
    #[error("the description of the machine cannot be stored")]
    Platform(#[from] InvalidView),
    /// A name is empty, longer than 56 bytes, or has control characters.
    #[error("{0:?} cannot be the name of a section")]
    Name(String),
    /// There are too many parts and pinned things together.
    #[error("{0} sections are more than the {MAX_SECTIONS} a record can have")]
    TooManySections(usize),
    /// What was given does not make a sound record.
    #[error("what was given makes no sound record")]
    Invalid(#[source] RecordError),
    /// The operating system has no randomness to give.
    #[error("there is no randomness for an identifier: {0}")]
    Randomness(String),
}

/// A record to be stored.
pub struct NewRecord {
    record: Record,
    /// What comes before the image: header and table.
    start: Vec<u8>,
    image: Arc<dyn FirmwareImage>,
    /// What comes after it: the description of the machine and the pinned things.
    end: Vec<u8>,
}

impl NewRecord {
    /// Reads the image once, for its digest.
    pub fn new(
        description: &FirmwareDescription,
        image: Arc<dyn FirmwareImage>,
        pinned: &Pinned,
        platform: &PlatformView,
    ) -> Result<Self, RecordInputError> {
        let mut sections = Vec::new();
        let count = image.parts().len() + 1 + pinned.0.len();
        if count > MAX_SECTIONS {
            return Err(RecordInputError::TooManySections(count));
        }
        for (i, part) in image.parts().iter().enumerate() {
            if part.len > MAX_IMAGE_LEN {
                let error = RecordError::Table("a part of the image is too long");
                return Err(RecordInputError::Invalid(error));
            }
            let digest =
                digest_part(&*image, i, part).map_err(|source| RecordInputError::Read {
                    part: part.name.clone(),
                    source,
                })?;
            sections.push(Section {
                kind: SectionKind::ImagePart,
                name: part.name.clone(),
                gpa: part.gpa,
                len: part.len,
                digest,
            });
        }
        let digests: Vec<_> = sections.iter().map(|section| section.digest).collect();
        let mut end = Vec::new();
        let mut add = |kind, name: &str, bytes: &[u8]| {
            sections.push(Section {
                kind,
                name: name.to_owned(),
                gpa: 0,
                len: bytes.len() as u64,
                digest: Digest::of(bytes),
            });
            end.extend_from_slice(bytes);
        };
        add(SectionKind::Platform, "platform", &platform.encode()?);
        for (name, bytes) in &pinned.0 {
            add(SectionKind::Pinned, name, bytes);
        }
        let mut image_id = [0; 16];
        getrandom::fill(&mut image_id)
            .map_err(|error| RecordInputError::Randomness(error.to_string()))?;
        let tables = FIRMWARE_RECORD_HEADER_LEN + sections.len() * FIRMWARE_RECORD_SECTION_LEN;
        let image_len = image
            .parts()
            .iter()
            .fold(0, |sum: u64, part| sum.saturating_add(part.len));
        let record = Record {
            architecture: description.architecture,
            entry_rule: description.entry_rule,
            entry_gpa: description.entry_gpa,
            load_gpa: image.parts().first().map_or(0, |part| part.gpa),
            image_len,
            image_digest: digest_image(&digests),
            image_id: ImageId(image_id),
            firmware_version: description.version.as_deref().and_then(short_version),
            capture_time: filetime_now(),
            platform_digest: platform.digest()?,
            len: (tables as u64)
                .saturating_add(image_len)
                .saturating_add(end.len() as u64),
            sections,
        };
        decode::check(&record).map_err(RecordInputError::Invalid)?;
        let start = encode_start(&record)?;
        Ok(Self {
            record,
            start,
            image,
            end,
        })
    }

    /// What header and table will say.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The bytes of the record, [`Record::len`] of them. The image is read again, and must be what it
    /// was when its digest was made.
    pub fn stream(&self) -> RecordStream {
        let mut lengths = vec![self.start.len() as u64];
        lengths.extend(self.image.parts().iter().map(|part| part.len));
        lengths.push(self.end.len() as u64);
        RecordStream {
            start: self.start.clone(),
            image: self.image.clone(),
            end: self.end.clone(),
            lengths,
            segment: 0,
            offset: 0,
        }
    }
}

/// A version as it is kept: without control characters, of at most 64 bytes.
fn short_version(version: &str) -> Option<String> {
    let mut short: String = version.chars().filter(|c| !c.is_control()).collect();
    short.truncate(short.floor_char_boundary(64));
    (!short.is_empty()).then_some(short)
}

/// The bytes of a record, one after the other.
pub struct RecordStream {
    start: Vec<u8>,
    image: Arc<dyn FirmwareImage>,
    end: Vec<u8>,
    lengths: Vec<u64>,
    segment: usize,
    offset: u64,
}

impl io::Read for RecordStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while let Some(len) = self.lengths.get(self.segment) {
            let left = len.saturating_sub(self.offset);
            if left == 0 {
                self.segment += 1;
                self.offset = 0;
                continue;
            }
            let count = left.min(buf.len() as u64) as usize;
            let piece = &mut buf[..count];
            let bytes = if self.segment == 0 {
                Some(&self.start)
            } else if self.segment + 1 == self.lengths.len() {
                Some(&self.end)
            } else {
                None
            };
            match bytes {
                Some(bytes) => {
                    let from = self.offset as usize;
                    piece.copy_from_slice(&bytes[from..from + count]);
                }
                None => self.image.read(self.segment - 1, self.offset, piece)?,
            }
            self.offset += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// The bytes of header and section table.
pub(crate) fn encode_start(record: &Record) -> Result<Vec<u8>, RecordInputError> {
    let mut table = Vec::with_capacity(record.sections.len() * FIRMWARE_RECORD_SECTION_LEN);
    for section in &record.sections {
        let name = &section.name;
        let mut entry = FirmwareRecordSection::new_zeroed();
        if name.is_empty() || name.len() > entry.name.len() || name.chars().any(char::is_control) {
            return Err(RecordInputError::Name(name.clone()));
        }
        entry.kind = match section.kind {
            SectionKind::ImagePart => FirmwareRecordSection::IMAGE_PART,
            SectionKind::Platform => FirmwareRecordSection::PLATFORM,
            SectionKind::Pinned => FirmwareRecordSection::PINNED,
        }
        .into();
        entry.gpa = section.gpa.into();
        entry.len = section.len.into();
        entry.digest = section.digest.0;
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        table.extend_from_slice(entry.as_bytes());
    }
    let mut header = FirmwareRecordHeader::new_zeroed();
    header.magic = FirmwareRecordHeader::MAGIC;
    header.version = FirmwareRecordHeader::VERSION.into();
    header.header_len = (FIRMWARE_RECORD_HEADER_LEN as u16).into();
    header.architecture = match record.architecture {
        Architecture::X86_64 => FirmwareRecordHeader::X86_64,
        Architecture::Aarch64 => FirmwareRecordHeader::AARCH64,
    }
    .into();
    header.digest_algorithm = FirmwareRecordHeader::SHA256.into();
    header.load_gpa = record.load_gpa.into();
    header.image_len = record.image_len.into();
    header.entry_rule = match record.entry_rule {
        EntryRule::ResetVector => FirmwareRecordHeader::ENTRY_RESET_VECTOR,
        EntryRule::SecCore => FirmwareRecordHeader::ENTRY_SEC_CORE,
        EntryRule::Fixed => FirmwareRecordHeader::ENTRY_FIXED,
    }
    .into();
    header.section_count = (record.sections.len() as u32).into();
    header.entry_gpa = record.entry_gpa.into();
    header.record_len = record.len.into();
    header.image_id = record.image_id.0;
    header.capture_time = record.capture_time.into();
    header.image_digest = record.image_digest.0;
    header.platform_digest = record.platform_digest.0;
    header.table_digest = Digest::of(&table).0;
    let version = record.firmware_version.as_deref().unwrap_or_default();
    header.firmware_version[..version.len()].copy_from_slice(version.as_bytes());
    header.crc = header.expected_crc().into();
    let mut start = header.as_bytes().to_vec();
    start.append(&mut table);
    Ok(start)
}
