//! Checks of a record before it is written and after it is read.

use super::contents::Record;
use super::contents::RecordSection;
use super::contents::SectionKind;
use super::error::RecordError;
use crate::image::EntryRule;
use crate::image::RESET_VECTOR;
use crate::image::digest_image;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;

/// The maximum length of an image, in bytes: the flash window of an x86 machine below 4 GiB.
pub const MAX_IMAGE_LEN: u64 = 16 << 20;
/// The maximum total length of the pinned sections, in bytes.
pub const MAX_PINNED_LEN: u64 = 4 << 20;
/// The maximum number of sections in a record.
pub const MAX_SECTIONS: usize = 64;

/// The end of the guest-physical address space: no processor has more than 52 address bits.
const GPA_END: u64 = 1 << 52;
const PAGE: u64 = 4096;

/// Checks that header and section table agree and stay within the limits.
pub(super) fn validate(record: &Record) -> Result<(), RecordError> {
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
            return table("two sections have the same name");
        }
        match section.kind {
            SectionKind::ImagePart => {
                if digests.len() != i {
                    return table("a part of the image comes after other sections");
                }
                validate_part(section, before)?;
                digests.push(section.digest);
                image_len += section.len;
                if image_len > MAX_IMAGE_LEN {
                    return table("the image is too long");
                }
            }
            SectionKind::Platform => {
                platforms += 1;
                if section.len > platform_digest::MAX_ENCODED_LEN as u64 {
                    return table("the platform section is too long");
                }
                if section.digest != record.platform_digest {
                    return table("the platform section is not the one in the header");
                }
            }
            SectionKind::Pinned => {
                pinned_len = pinned_len.saturating_add(section.len);
                if pinned_len > MAX_PINNED_LEN {
                    return table("the pinned sections are too long");
                }
            }
        }
        if section.kind != SectionKind::ImagePart && section.gpa != 0 {
            return table("a section that is not a part of the image has an address");
        }
        // Each length is within its limit, so this cannot overflow.
        total += section.len;
    }
    if digests.is_empty() {
        return table("there is no part of the image");
    }
    if platforms != 1 {
        return table("there is not exactly one platform section");
    }
    if total != record.len {
        return Err(RecordError::Length {
            expected: total,
            found: record.len,
        });
    }
    let header = |what| Err(RecordError::Header(what));
    if image_len != record.image_len || record.sections[0].gpa != record.load_gpa {
        return header("the address or the length of the image is not that of its parts");
    }
    if digest_image(&digests) != record.image_digest {
        return header("the digest of the image is not that of its parts");
    }
    if !record
        .parts()
        .iter()
        .any(|part| part.contains(record.entry_gpa))
    {
        return header("the entry point is outside the image");
    }
    if record.entry_rule == EntryRule::ResetVector && record.entry_gpa != RESET_VECTOR {
        return header("the entry point is not at the reset vector");
    }
    Ok(())
}

fn validate_part(part: &RecordSection, before: &[RecordSection]) -> Result<(), RecordError> {
    if part.len == 0 || !part.len.is_multiple_of(PAGE) || !part.gpa.is_multiple_of(PAGE) {
        return Err(RecordError::Table(
            "a part of the image does not consist of whole pages",
        ));
    }
    let Some(end) = part.gpa.checked_add(part.len).filter(|end| *end <= GPA_END) else {
        return Err(RecordError::Table(
            "a part of the image is outside the address space",
        ));
    };
    // The parts before were validated, so their ends do not overflow.
    if before
        .iter()
        .any(|other| part.gpa < other.gpa + other.len && other.gpa < end)
    {
        return Err(RecordError::Table("two parts of the image overlap"));
    }
    Ok(())
}
