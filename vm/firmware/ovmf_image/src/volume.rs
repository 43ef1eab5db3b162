//! Firmware volumes, their files, and the sections of those (UEFI Platform Initialization specification, volume 3).

/// Offsets of fields in a volume header.
const GUID: usize = 16;
const LENGTH: usize = 32;
const SIGNATURE: usize = 40;
const HEADER_LENGTH: usize = 48;
const EXTENDED_HEADER: usize = 52;
const REVISION: usize = 55;
/// The size of a header without its block map.
const MIN_HEADER: usize = 56;

pub(crate) type Guid = [u8; 16];

/// File types.
pub(crate) const FILE_SEC_CORE: u8 = 0x03;
pub(crate) const FILE_PEI_CORE: u8 = 0x04;
pub(crate) const FILE_SMM_CORE: u8 = 0x0d;

/// Section types.
pub(crate) const SECTION_PE32: u8 = 0x10;
pub(crate) const SECTION_TE: u8 = 0x12;
pub(crate) const SECTION_GUID_DEFINED: u8 = 0x02;
pub(crate) const SECTION_VOLUME: u8 = 0x17;

const LARGE_FILE: u8 = 0x01;
const LARGE: u32 = 0xff_ffff;

/// Why bytes are not a usable volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeError {
    /// The bytes are not a volume.
    NotAVolume,
    /// It is longer than the bytes that are there.
    Truncated {
        len: u64,
    },
    Damaged(&'static str),
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array_at(bytes, at)?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array_at(bytes, at)?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array_at(bytes, at)?))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The value of all bytes, if they are the same.
pub(crate) fn repeated_byte(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    bytes.iter().all(|byte| *byte == first).then_some(first)
}

/// The sum of the words of a header, which is 0 if it is valid.
pub(crate) fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    words.fold(0, |sum: u16, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    })
}

fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = array_at(bytes, at)?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

/// A volume with a valid header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume<'a> {
    /// The whole volume.
    pub(crate) bytes: &'a [u8],
    header_len: usize,
}

impl<'a> Volume<'a> {
    /// The volume at the start of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, VolumeError> {
        let header = bytes.get(..MIN_HEADER).ok_or(VolumeError::NotAVolume)?;
        if !header[SIGNATURE..].starts_with(b"_FVH") {
            return Err(VolumeError::NotAVolume);
        }
        let damaged = VolumeError::Damaged("its header is too short");
        let header_len = usize::from(u16_at(header, HEADER_LENGTH).ok_or(damaged)?);
        let len = u64_at(header, LENGTH).ok_or(damaged)?;
        if header_len < MIN_HEADER || !header_len.is_multiple_of(2) || header_len as u64 > len {
            return Err(VolumeError::Damaged("its header has an impossible length"));
        }
        let header = bytes
            .get(..header_len)
            .ok_or(VolumeError::Truncated { len })?;
        if checksum(header) != 0 {
            return Err(VolumeError::Damaged("its header's checksum is wrong"));
        }
        if !matches!(header[REVISION], 1 | 2) {
            return Err(VolumeError::Damaged("its header is of an unknown revision"));
        }
        let bytes = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
        Ok(Self {
            bytes: bytes.ok_or(VolumeError::Truncated { len })?,
            header_len,
        })
    }

    /// The GUID of its content: files or variables.
    pub(crate) fn guid(&self) -> Guid {
        array_at(self.bytes, GUID).unwrap_or_default()
    }

    pub(crate) fn header_len(&self) -> usize {
        self.header_len
    }

    /// The sum of the lengths in its block map.
    pub(crate) fn mapped_len(&self) -> Option<u64> {
        let map = self.bytes.get(MIN_HEADER..self.header_len)?;
        let mut sum = 0_u64;
        for entry in map.chunks_exact(8) {
            let (count, len) = (u32_at(entry, 0)?, u32_at(entry, 4)?);
            if (count, len) == (0, 0) {
                return Some(sum);
            }
            sum = sum.checked_add(u64::from(count) * u64::from(len))?;
        }
        None
    }

    /// Its files, up to the first invalid one.
    pub(crate) fn files(&self) -> Files<'a> {
        let extended = u16_at(self.bytes, EXTENDED_HEADER).map_or(0, usize::from);
        let start = if extended == 0 {
            Some(self.header_len)
        } else {
            u32_at(self.bytes, extended + 16).and_then(|len| extended.checked_add(len as usize))
        };
        Files {
            volume: self.bytes,
            // No files if the extended header has no valid length.
            at: start.unwrap_or(self.bytes.len()),
        }
    }
}

/// A file in a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VolumeFile<'a> {
    pub(crate) name: Guid,
    pub(crate) kind: u8,
    /// Offset of its body in the volume.
    pub(crate) offset: usize,
    /// The bytes after its header.
    pub(crate) body: &'a [u8],
}

pub(crate) struct Files<'a> {
    volume: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Files<'a> {
    type Item = VolumeFile<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at.checked_next_multiple_of(8)?;
        let header = self.volume.get(start..)?.get(..24)?;
        // Free space. The name alone does not tell: that of a pad file is all ones too.
        if header.iter().all(|byte| *byte == 0xff) {
            return None;
        }
        let short = u24_at(header, 20)?;
        let (len, header_len) = if short == LARGE && header[19] & LARGE_FILE != 0 {
            let len = u64_at(self.volume, start + 24)?;
            (usize::try_from(len).ok()?, 32)
        } else {
            (short as usize, 24)
        };
        let body = self.volume.get(start..start.checked_add(len)?)?;
        let body = body.get(header_len..)?;
        self.at = start + len;
        Some(VolumeFile {
            name: array_at(header, 0)?,
            kind: header[18],
            offset: start + header_len,
            body,
        })
    }
}

/// A section of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) kind: u8,
    /// Its offset in the enclosing file or section.
    pub(crate) start: usize,
    /// The whole section with its header.
    pub(crate) bytes: &'a [u8],
    pub(crate) header_len: usize,
}

impl<'a> Section<'a> {
    pub(crate) fn body(&self) -> &'a [u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }
}

/// The sections in the body of a file or in the content of a section, up to the first invalid one.
pub(crate) fn sections(bytes: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let start = at.checked_next_multiple_of(4)?;
        let rest = bytes.get(start..)?;
        let kind = *rest.get(3)?;
        let (len, header_len) = match u24_at(rest, 0)? {
            LARGE => (u32_at(rest, 4)? as usize, 8),
            len => (len as usize, 4),
        };
        let section = rest.get(..len).filter(|_| len >= header_len)?;
        at = start + len;
        Some(Section {
            kind,
            start,
            bytes: section,
            header_len,
        })
    })
}
