//! The fixed header.

use crate::IgvmError;
use crate::PAGE;
use crate::Problem;
use crate::raw;
use zerocopy::FromBytes;
use zerocopy::IntoBytes;

/// The version of the format, with what only version 2 states.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Revision {
    /// x86-64, and pages of 4 KiB.
    V1,
    /// The architecture; pages have 4 KiB.
    V2(Architecture),
}

/// The architecture of the guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    X64,
    /// 64-bit ARM.
    AArch64,
}

impl Revision {
    /// The architecture of the guest.
    pub fn architecture(self) -> Architecture {
        match self {
            Self::V1 => Architecture::X64,
            Self::V2(architecture) => architecture,
        }
    }

    /// The length of the fixed header, in bytes.
    pub(crate) fn header_len(self) -> usize {
        match self {
            Self::V1 => size_of::<raw::FixedHeader>(),
            Self::V2(_) => size_of::<raw::FixedHeader>() + size_of::<raw::FixedHeaderV2>(),
        }
    }
}

/// Whether a file that begins with `head` is an IGVM file.
pub fn is_igvm(head: &[u8]) -> bool {
    head.starts_with(&raw::MAGIC)
}

/// What the fixed header says.
pub(crate) struct Header<'a> {
    pub revision: Revision,
    /// The variable headers.
    pub records: &'a [u8],
    /// Their offset in the file.
    pub records_offset: u64,
}

const NAME: &str = "fixed header";

fn error(problem: Problem) -> IgvmError {
    IgvmError {
        offset: 0,
        structure: NAME,
        problem,
    }
}

impl<'a> Header<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        if !is_igvm(file) {
            return Err(error(Problem::Magic));
        }
        let truncated = |needed: usize| {
            error(Problem::Truncated {
                needed: needed as u64,
                available: file.len() as u64,
            })
        };
        let (header, rest) = raw::FixedHeader::ref_from_prefix(file)
            .map_err(|_| truncated(size_of::<raw::FixedHeader>()))?;
        let value = |field, value: u32, expected| {
            error(Problem::Value {
                field,
                value: value.into(),
                expected,
            })
        };
        let revision = match header.version.get() {
            1 => Revision::V1,
            2 => {
                let (more, _) = raw::FixedHeaderV2::ref_from_prefix(rest)
                    .map_err(|_| truncated(Revision::V2(Architecture::X64).header_len()))?;
                let page_size = more.page_size.get();
                if u64::from(page_size) != PAGE {
                    return Err(value("the page size", page_size, "only 4096 is supported"));
                }
                Revision::V2(match more.architecture.get() {
                    0 => Architecture::X64,
                    1 => Architecture::AArch64,
                    other => {
                        let expected = "0 is x64 and 1 is AArch64";
                        return Err(value("the architecture", other, expected));
                    }
                })
            }
            other => return Err(value("the version", other, "1 and 2 are supported")),
        };
        let stated = header.total_size.get();
        let actual = file.len() as u64;
        if u64::from(stated) != actual {
            return Err(error(Problem::TotalSize { stated, actual }));
        }
        let offset = header.variable_offset.get();
        let start = offset as usize;
        if start < revision.header_len() || !start.is_multiple_of(8) {
            let expected = "a multiple of 8 after the fixed header is needed";
            return Err(value("the variable headers' offset", offset, expected));
        }
        let size = header.variable_size.get();
        let records = file.get(start..).and_then(|rest| rest.get(..size as usize));
        let records = records.ok_or_else(|| {
            let expected = "the variable headers end after the file";
            value("the variable headers' size", size, expected)
        })?;
        let computed = checksum(&file[..revision.header_len()], records);
        let stated = header.checksum.get();
        if computed != stated {
            return Err(error(Problem::Checksum { stated, computed }));
        }
        Ok(Self {
            revision,
            records,
            records_offset: offset.into(),
        })
    }
}

/// `file` with the total size and the checksum that it should state, as far as it has a fixed header: for tests of
/// what is behind those checks.
pub fn with_valid_header(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let word = |file: &[u8], at: usize| {
        let bytes = file.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let fix = |file: &mut Vec<u8>| {
        let total = u32::try_from(file.len()).ok()?;
        file.get_mut(16..20)?.copy_from_slice(&total.to_le_bytes());
        let len = match word(file, 4)? {
            2 => Revision::V2(Architecture::X64).header_len(),
            _ => Revision::V1.header_len(),
        };
        let start = word(file, 8)? as usize;
        let end = start.checked_add(word(file, 12)? as usize)?;
        let sum = checksum(file.get(..len)?, file.get(start..end)?);
        let field = raw::CHECKSUM_OFFSET..raw::CHECKSUM_OFFSET + 4;
        file.get_mut(field)?.copy_from_slice(&sum.to_le_bytes());
        Some(())
    };
    // Without a whole header there is nothing to mend.
    let _ = fix(&mut file);
    file
}

/// The checksum of a fixed header, whatever checksum it states, and of the variable headers. A gap between them is
/// not part of it.
pub(crate) fn checksum(header: &[u8], records: &[u8]) -> u32 {
    let (before, after) = header.split_at(raw::CHECKSUM_OFFSET);
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(&[0; 4]);
    crc.update(&after[4..]);
    crc.update(records);
    crc.finalize()
}

/// A fixed header for these variable headers, which follow at once, and `data_len` bytes of file data.
pub(crate) fn write(revision: Revision, records: &[u8], data_len: usize) -> Option<Vec<u8>> {
    let len = revision.header_len();
    let total = len.checked_add(records.len())?.checked_add(data_len)?;
    let header = raw::FixedHeader {
        magic: raw::MAGIC,
        version: match revision {
            Revision::V1 => 1,
            Revision::V2(_) => 2,
        }
        .into(),
        variable_offset: u32::try_from(len).ok()?.into(),
        variable_size: u32::try_from(records.len()).ok()?.into(),
        total_size: u32::try_from(total).ok()?.into(),
        checksum: 0.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    if let Revision::V2(architecture) = revision {
        let more = raw::FixedHeaderV2 {
            architecture: match architecture {
                Architecture::X64 => 0,
                Architecture::AArch64 => 1,
            }
            .into(),
            page_size: (PAGE as u32).into(),
        };
        bytes.extend_from_slice(more.as_bytes());
    }
    let checksum = checksum(&bytes, records);
    bytes[raw::CHECKSUM_OFFSET..raw::CHECKSUM_OFFSET + 4].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}
