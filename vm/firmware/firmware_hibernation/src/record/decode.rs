//! From bytes to [`Record`].

use super::ImageId;
use super::Record;
use super::RecordError;
use super::Section;
use super::SectionKind;
use super::encode::MAX_IMAGE_LEN;
use super::encode::MAX_PINNED_LEN;
use super::encode::MAX_SECTIONS;
use crate::image::Architecture;
use crate::image::EntryRule;
use crate::image::RESET_VECTOR;
use crate::image::digest_image;
use platform_digest::Digest;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FirmwareRecordHeader;
use vmgs_format::FirmwareRecordSection;
use zerocopy::FromBytes;

/// Guest-physical addresses end here on every processor there is.
const GPA_END: u64 = 1 << 52;
const PAGE: u64 = 4096;

/// The header in `bytes`, as far as it can be judged alone.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<FirmwareRecordHeader, RecordError> {
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
            "its length or a reserved field is wrong",
        ));
    }
    if header.digest_algorithm.get() != FirmwareRecordHeader::SHA256 {
        return Err(RecordError::Header("its digest algorithm is unknown"));
    }
    if !(1..=MAX_SECTIONS as u32).contains(&header.section_count.get()) {
        return Err(RecordError::Header("its number of sections is impossible"));
    }
    Ok(header)
}

/// The record with this header and this section table.
pub(crate) fn decode_table(
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
        image_id: ImageId(header.image_id),
        firmware_version: text(&header.firmware_version)
            .map_err(RecordError::Header)?
            .filter(|version| !version.is_empty()),
        capture_time: header.capture_time.get(),
        platform_digest: Digest(header.platform_digest),
        len: header.record_len.get(),
        sections,
    };
    check(&record)?;
    Ok(record)
}

/// The record whose header and section table `bytes` starts with. Its content is not looked at.
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

fn decode_section(entry: &FirmwareRecordSection) -> Result<Section, RecordError> {
    if entry.flags.get() != 0 {
        return Err(RecordError::Table("a section has unknown flags"));
    }
    Ok(Section {
        kind: match entry.kind.get() {
            FirmwareRecordSection::IMAGE_PART => SectionKind::ImagePart,
            FirmwareRecordSection::PLATFORM => SectionKind::Platform,
            FirmwareRecordSection::PINNED => SectionKind::Pinned,
            _ => return Err(RecordError::Table("a section is of an unknown kind")),
        },
        name: text(&entry.name)
            .map_err(RecordError::Table)?
            .ok_or(RecordError::Table("a section has no name"))?,
        gpa: entry.gpa.get(),
        len: entry.len.get(),
        digest: Digest(entry.digest),
    })
}

/// A text followed by zeros; `None` if it is empty.
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

/// Whether everything that is said fits together.
pub(super) fn check(record: &Record) -> Result<(), RecordError> {
    let table = |what| Err(RecordError::Table(what));
    let count = record.sections.len();
    let mut total = (FIRMWARE_RECORD_HEADER_LEN + count * FIRMWARE_RECORD_SECTION_LEN) as u64;
    let (mut image_len, mut pinned_len, mut platforms) = (0u64, 0u64, 0);
    let mut digests = Vec::new();
    for (i, section) in record.sections.iter().enumerate() {
        let before = &record.sections[..i];
        if before
            .iter()
            .any(|other| other.kind == section.kind && other.name == section.name)
        {
            return table("two sections have one name");
        }
        match section.kind {
            SectionKind::ImagePart => {
                if digests.len() != i {
                    return table("a part of the image comes after other sections");
                }
                check_part(section, before)?;
                digests.push(section.digest);
                image_len += section.len;
                if image_len > MAX_IMAGE_LEN {
                    return table("the image is too long");
                }
            }
            SectionKind::Platform => {
                platforms += 1;
                if section.len > platform_digest::MAX_ENCODED_LEN as u64 {
                    return table("the description of the machine is too long");
                }
                if section.digest != record.platform_digest {
                    return table("the description of the machine is another than in the header");
                }
            }
            SectionKind::Pinned => {
                pinned_len = pinned_len.saturating_add(section.len);
                if pinned_len > MAX_PINNED_LEN {
                    return table("what the firmware was given is too long");
                }
            }
        }
        if section.kind != SectionKind::ImagePart && section.gpa != 0 {
            return table("a section that is no part of the image has an address");
        }
        // None of the lengths is over its limit, so this cannot overflow.
        total += section.len;
    }
    if digests.is_empty() {
        return table("there is no image");
    }
    if platforms != 1 {
        return table("there is not exactly one description of the machine");
    }
    if total != record.len {
        return Err(RecordError::Length {
            expected: total,
            found: record.len,
        });
    }
    let header = |what| Err(RecordError::Header(what));
    if image_len != record.image_len || record.sections[0].gpa != record.load_gpa {
        return header("the image is elsewhere or longer or shorter than its parts");
    }
    if digest_image(&digests) != record.image_digest {
        return header("the image's digest is not that of its parts");
    }
    if !record
        .parts()
        .iter()
        .any(|part| part.contains(record.entry_gpa))
    {
        return header("the first instruction is outside the image");
    }
    if record.entry_rule == EntryRule::ResetVector && record.entry_gpa != RESET_VECTOR {
        return header("the first instruction is not at the reset vector");
    }
    Ok(())
}

fn check_part(part: &Section, before: &[Section]) -> Result<(), RecordError> {
    if part.len == 0 || !part.len.is_multiple_of(PAGE) || !part.gpa.is_multiple_of(PAGE) {
        return Err(RecordError::Table("a part of the image is not whole pages"));
    }
    let Some(end) = part.gpa.checked_add(part.len).filter(|end| *end <= GPA_END) else {
        return Err(RecordError::Table(
            "a part of the image is outside the address space",
        ));
    };
    // Those before were checked, so that their ends do not overflow.
    if before
        .iter()
        .any(|other| part.gpa < other.gpa + other.len && other.gpa < end)
    {
        return Err(RecordError::Table("two parts of the image overlap"));
    }
    Ok(())
}
