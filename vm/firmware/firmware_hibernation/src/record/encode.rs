//! Encoding a new record.

use super::contents::Record;
use super::contents::RecordSection;
use super::contents::SectionKind;
use super::contents::filetime_now;
use super::error::RecordError;
use super::validate::MAX_IMAGE_LEN;
use super::validate::MAX_SECTIONS;
use super::validate::validate;
use crate::image::Architecture;
use crate::image::EntryRule;
use crate::image::FirmwareDescription;
use crate::image::FirmwareImage;
use crate::image::PinnedFiles;
use crate::image::digest_image;
use platform_digest::Digest;
use platform_digest::InvalidView;
use platform_digest::PlatformView;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use uuid::Uuid;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;
use vmgs_format::FirmwareRecordSection;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

/// Why a record cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordInputError {
    /// The platform view cannot be encoded.
    #[error("the description of the machine cannot be encoded")]
    Platform(#[from] InvalidView),
    /// A name is empty, longer than 56 bytes, or has control characters.
    #[error("{0:?} is not a valid name of a section")]
    Name(String),
    /// There are too many parts and pinned files together.
    #[error("{0} sections are more than the maximum of {MAX_SECTIONS}")]
    TooManySections(usize),
    /// The record would not be valid.
    #[error("the record would not be valid")]
    Invalid(#[source] RecordError),
    /// The host has no random bytes for the identifier.
    #[error("no random bytes for an identifier: {0}")]
    Randomness(String),
}

/// A new record.
pub struct NewRecord {
    record: Record,
    /// Header and section table.
    start: Arc<[u8]>,
    image: FirmwareImage,
    /// The sections after the image: the platform view and the pinned files.
    end: Arc<[u8]>,
}

impl NewRecord {
    /// A record of `image` and what it was given, with a new identifier and the present time.
    pub fn new(
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        platform: &PlatformView,
    ) -> Result<Self, RecordInputError> {
        let mut sections = Vec::new();
        let count = image.parts().len() + 1 + pinned.len();
        if count > MAX_SECTIONS {
            return Err(RecordInputError::TooManySections(count));
        }
        for (part, content) in image.parts() {
            if part.len > MAX_IMAGE_LEN {
                let error = RecordError::Table("a part of the image is too long");
                return Err(RecordInputError::Invalid(error));
            }
            sections.push(RecordSection {
                kind: SectionKind::ImagePart,
                name: part.name.clone(),
                gpa: part.gpa,
                len: part.len,
                digest: Digest::of(content),
            });
        }
        let digests: Vec<_> = sections.iter().map(|section| section.digest).collect();
        let mut end = Vec::new();
        let mut add = |kind, name: &str, bytes: &[u8]| {
            sections.push(RecordSection {
                kind,
                name: name.to_owned(),
                gpa: 0,
                len: bytes.len() as u64,
                digest: Digest::of(bytes),
            });
            end.extend_from_slice(bytes);
        };
        add(SectionKind::Platform, "platform", &platform.encode()?);
        for (name, bytes) in pinned {
            add(SectionKind::Pinned, name, bytes);
        }
        let mut image_id = [0; 16];
        getrandom::fill(&mut image_id)
            .map_err(|error| RecordInputError::Randomness(error.to_string()))?;
        let tables = FIRMWARE_RECORD_HEADER_LEN + sections.len() * FIRMWARE_RECORD_SECTION_LEN;
        let image_len = image
            .parts()
            .iter()
            .fold(0, |sum: u64, (part, _)| sum.saturating_add(part.len));
        let record = Record {
            architecture: description.architecture,
            entry_rule: description.entry_rule,
            entry_gpa: description.entry_gpa,
            load_gpa: image.parts().first().map_or(0, |(part, _)| part.gpa),
            image_len,
            image_digest: digest_image(&digests),
            image_id: Uuid::from_bytes(image_id),
            firmware_version: description.version.as_deref().and_then(short_version),
            capture_time: filetime_now(),
            platform_digest: platform.digest()?,
            len: (tables as u64)
                .saturating_add(image_len)
                .saturating_add(end.len() as u64),
            sections,
        };
        validate(&record).map_err(RecordInputError::Invalid)?;
        let start = encode_start(&record)?;
        Ok(Self {
            record,
            start: start.into(),
            image,
            end: end.into(),
        })
    }

    /// Header and section table.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The bytes of the record, [`Record::len`] of them.
    pub fn stream(&self) -> RecordStream {
        let image = self.image.parts().iter().map(|(_, content)| content);
        RecordStream(
            std::iter::once(&self.start)
                .chain(image)
                .chain(std::iter::once(&self.end))
                .map(|piece| io::Cursor::new(piece.clone()))
                .collect(),
        )
    }
}

/// The version as it is stored: without control characters, at most 64 bytes.
fn short_version(version: &str) -> Option<String> {
    let mut short: String = version.chars().filter(|c| !c.is_control()).collect();
    short.truncate(short.floor_char_boundary(64));
    (!short.is_empty()).then_some(short)
}

/// The bytes of a record.
pub struct RecordStream(VecDeque<io::Cursor<Arc<[u8]>>>);

impl io::Read for RecordStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            let count = piece.read(buf)?;
            if count != 0 || buf.is_empty() {
                return Ok(count);
            }
            self.0.pop_front();
        }
        Ok(0)
    }
}

/// Encodes header and section table.
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
    header.image_id = record.image_id.into_bytes();
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
