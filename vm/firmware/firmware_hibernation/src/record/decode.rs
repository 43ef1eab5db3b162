//! Decoding a [`Record`].

use super::contents::Record;
use super::contents::RecordSection;
use super::contents::SectionKind;
use super::error::RecordError;
use super::validate::MAX_SECTIONS;
use super::validate::validate;
use crate::image::Architecture;
use crate::image::EntryRule;
use platform_digest::Digest;
use uuid::Uuid;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;
use vmgs_format::FirmwareRecordSection;
use zerocopy::FromBytes;

/// Decodes the header at the start of `bytes`, checking what does not depend on the section table.
pub(super) fn decode_header(bytes: &[u8]) -> Result<FirmwareRecordHeader, RecordError> {
    if !bytes.starts_with(&FirmwareRecordHeader::MAGIC) {
        return Err(RecordError::NotARecord);
    }
    let (header, _) = FirmwareRecordHeader::read_from_prefix(bytes)
        .map_err(|_| RecordError::Header("it is too short"))?;
    if header.crc.get() != header.expected_crc() {
        return Err(RecordError::Header("its CRC is wrong"));
    }
    let (version, flags) = (header.version.get(), header.flags.get());
    if version != FirmwareRecordHeader::VERSION || flags != 0 {
        return Err(RecordError::Unsupported { version, flags });
    }
    if !header.is_valid() {
        return Err(RecordError::Header(
            "its length or a reserved field is invalid",
        ));
    }
    if header.digest_algorithm.get() != FirmwareRecordHeader::SHA256 {
        return Err(RecordError::Header("its digest algorithm is unknown"));
    }
    if !(1..=MAX_SECTIONS as u32).contains(&header.section_count.get()) {
        return Err(RecordError::Header("its number of sections is invalid"));
    }
    Ok(header)
}

/// Decodes the section table and validates the record.
pub(super) fn decode_table(
    header: &FirmwareRecordHeader,
    table: &[u8],
) -> Result<Record, RecordError> {
    if Digest::of(table).0 != header.table_digest {
        return Err(RecordError::Table("its digest is wrong"));
    }
    let mut sections = Vec::with_capacity(table.len() / FIRMWARE_RECORD_SECTION_LEN);
    for entry in table.chunks_exact(FIRMWARE_RECORD_SECTION_LEN) {
        let entry = FirmwareRecordSection::read_from_bytes(entry)
            .map_err(|_| RecordError::Table("it is too short"))?;
        sections.push(decode_section(&entry)?);
    }
    let record = Record {
        architecture: match header.architecture.get() {
            FirmwareRecordHeader::X86_64 => Architecture::X86_64,
            FirmwareRecordHeader::AARCH64 => Architecture::Aarch64,
            _ => return Err(RecordError::Header("its architecture is unknown")),
        },
        entry_rule: match header.entry_rule.get() {
            FirmwareRecordHeader::ENTRY_RESET_VECTOR => EntryRule::ResetVector,
            FirmwareRecordHeader::ENTRY_SEC_CORE => EntryRule::SecCore,
            FirmwareRecordHeader::ENTRY_FIXED => EntryRule::Fixed,
            _ => return Err(RecordError::Header("its entry rule is unknown")),
        },
        entry_gpa: header.entry_gpa.get(),
        load_gpa: header.load_gpa.get(),
        image_len: header.image_len.get(),
        image_digest: Digest(header.image_digest),
        image_id: Uuid::from_bytes(header.image_id),
        firmware_version: text(&header.firmware_version).map_err(RecordError::Header)?,
        capture_time: header.capture_time.get(),
        platform_digest: Digest(header.platform_digest),
        len: header.record_len.get(),
        sections,
    };
    validate(&record)?;
    Ok(record)
}

/// Decodes the record whose header and section table are at the start of `bytes`. The content of the sections is
/// not checked.
pub(crate) fn decode_start(bytes: &[u8]) -> Result<Record, RecordError> {
    let header = decode_header(bytes)?;
    // The number of sections was checked.
    let len = header.section_count.get() as usize * FIRMWARE_RECORD_SECTION_LEN;
    let table = bytes
        .get(FIRMWARE_RECORD_HEADER_LEN..)
        .and_then(|table| table.get(..len))
        .ok_or(RecordError::Table("it is too short"))?;
    decode_table(&header, table)
}

fn decode_section(entry: &FirmwareRecordSection) -> Result<RecordSection, RecordError> {
    if entry.flags.get() != 0 {
        return Err(RecordError::Table("a section has unknown flags"));
    }
    Ok(RecordSection {
        kind: match entry.kind.get() {
            FirmwareRecordSection::IMAGE_PART => SectionKind::ImagePart,
            FirmwareRecordSection::PLATFORM => SectionKind::Platform,
            FirmwareRecordSection::PINNED => SectionKind::Pinned,
            _ => return Err(RecordError::Table("a section has an unknown kind")),
        },
        name: text(&entry.name)
            .map_err(RecordError::Table)?
            .ok_or(RecordError::Table("a section has no name"))?,
        gpa: entry.gpa.get(),
        len: entry.len.get(),
        digest: Digest(entry.digest),
    })
}

/// Decodes a zero-padded text; `None` if it is empty.
fn text(bytes: &[u8]) -> Result<Option<String>, &'static str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (text, zeros) = bytes.split_at(end);
    if zeros.iter().any(|b| *b != 0) {
        return Err("a text is not followed by zeros");
    }
    let text = str::from_utf8(text).map_err(|_| "a text is not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("a text has control characters");
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
