//! The entry point of the SEC phase, for firmware that runs where it was loaded.

use crate::volume::FILE_SEC_CORE;
use crate::volume::SECTION_PE32;
use crate::volume::SECTION_TE;
use crate::volume::Volume;
use crate::volume::sections;
use crate::volume::u16_at;
use crate::volume::u32_at;
use std::ops::Range;

/// The length of a TE image's header. Addresses count from the start of the headers that it replaces.
const TE_HEADER: u32 = 40;

/// Why the SEC phase cannot be entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecError {
    /// The volume is damaged.
    #[error("the volume with the SEC phase is damaged")]
    Volume,
    /// No SEC core file has an executable image.
    #[error("the SEC phase has no PE32 or TE image")]
    NoImage,
    /// The image's header is damaged.
    #[error("the header of the SEC phase's {0} image is damaged")]
    Header(&'static str),
    /// The entry point is not in the image.
    #[error("the SEC phase's entry point {entry:#x} is not in its image of {len:#x} bytes")]
    Entry {
        /// The offset in the image, in bytes.
        entry: u64,
        /// The image's length in bytes.
        len: usize,
    },
}

/// The offset in `image` of the instruction at which the SEC phase in the volume `sec` is entered. Its code is in memory
/// as it is in the file.
pub fn sec_entry(image: &[u8], sec: Range<usize>) -> Result<usize, SecError> {
    let base = sec.start;
    let bytes = image.get(sec).ok_or(SecError::Volume)?;
    let volume = Volume::parse(bytes).map_err(|_| SecError::Volume)?;
    for file in volume.files().filter(|file| file.kind == FILE_SEC_CORE) {
        for section in sections(file.body) {
            let body = section.body();
            let entry = match section.kind {
                SECTION_PE32 => pe_entry(body).ok_or(SecError::Header("PE32"))?,
                SECTION_TE => te_entry(body).ok_or(SecError::Header("TE"))?,
                _ => continue,
            };
            // The body is not shorter than an image with a header.
            let inside = usize::try_from(entry)
                .ok()
                .filter(|entry| *entry < body.len());
            let inside = inside.ok_or(SecError::Entry {
                entry,
                len: body.len(),
            })?;
            return Ok(base + file.offset + section.start + section.header_len + inside);
        }
    }
    Err(SecError::NoImage)
}

/// The entry point of a PE image (Microsoft's PE format, "Optional Header Standard Fields").
fn pe_entry(body: &[u8]) -> Option<u64> {
    let header = match body.starts_with(b"MZ") {
        true => u32_at(body, 0x3c)? as usize,
        false => 0,
    };
    let header = body.get(header..)?;
    let entry = header
        .starts_with(b"PE\0\0")
        .then(|| u32_at(header, 0x28))?;
    entry.map(u64::from)
}

/// The entry point of a TE image (UEFI Platform Initialization specification, volume 1, 15).
fn te_entry(body: &[u8]) -> Option<u64> {
    if !body.starts_with(b"VZ") {
        return None;
    }
    let stripped = u64::from(u16_at(body, 6)?);
    let entry = u64::from(u32_at(body, 8)?) + u64::from(TE_HEADER);
    entry.checked_sub(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FirmwareKind;
    use crate::constructed;

    fn entry(image: &[u8]) -> Result<usize, SecError> {
        let Ok(FirmwareKind::Msvm { sec }) = FirmwareKind::recognize(image) else {
            panic!("{:?}", FirmwareKind::recognize(image));
        };
        sec_entry(image, sec)
    }

    /// The first byte after the headers of volume, pad file, file and section.
    const BODY: usize = 0x5e_0000 + 0x48 + 24 + 24 + 4;

    #[test]
    fn both_kinds_of_images_have_an_entry() {
        let pe = constructed::pe(0x123);
        assert_eq!(entry(&constructed::msvm_with(0x10, &pe)), Ok(BODY + 0x123));
        // Without the part for DOS.
        let bare = pe[0x40..].to_vec();
        assert_eq!(
            entry(&constructed::msvm_with(0x10, &bare)),
            Ok(BODY + 0x123)
        );
        // 0x200 bytes of headers were stripped, and 40 bytes of TE header are there.
        let te = constructed::te(0x1123, 0x1000);
        let at = BODY + 0x1123 - 0x1000 + 40;
        assert_eq!(entry(&constructed::msvm_with(0x12, &te)), Ok(at));
    }

    #[test]
    fn damaged_images_are_refused() {
        let sec = |kind, body: &[u8]| entry(&constructed::msvm_with(kind, body)).unwrap_err();
        let pe = constructed::pe(0x123);
        let len = pe.len();
        assert_eq!(sec(0x19, &pe), SecError::NoImage);
        assert_eq!(sec(0x10, b"MZ"), SecError::Header("PE32"));
        assert_eq!(sec(0x10, b""), SecError::Header("PE32"));
        assert_eq!(sec(0x12, b"VZ"), SecError::Header("TE"));
        assert_eq!(sec(0x12, &pe), SecError::Header("TE"));
        let outside = constructed::pe(len as u32);
        let entry = len as u64;
        assert_eq!(sec(0x10, &outside), SecError::Entry { entry, len });
        let mut far = pe.clone();
        far[0x3c..0x40].fill(0xff);
        assert_eq!(sec(0x10, &far), SecError::Header("PE32"));
        // Before the start of the headers that are left.
        assert_eq!(
            sec(0x12, &constructed::te(0, 0x1000)),
            SecError::Header("TE")
        );
        let te = constructed::te(u32::MAX, 0);
        assert!(matches!(sec(0x12, &te), SecError::Entry { .. }));
    }

    #[test]
    fn a_file_of_no_size_ends_the_search() {
        let mut image = constructed::msvm_with(0x10, &constructed::pe(0x123));
        let file = 0x5e_0000 + 0x48 + 24;
        image[file + 20..file + 23].fill(0);
        let sec = 0x5e_0000..0x60_0000;
        assert_eq!(sec_entry(&image, sec.clone()), Err(SecError::NoImage));
        image[sec.start] = 0;
        image[sec.start + 40] = 0;
        assert_eq!(sec_entry(&image, sec), Err(SecError::Volume));
        assert_eq!(sec_entry(&image, 0..usize::MAX), Err(SecError::Volume));
    }
}
