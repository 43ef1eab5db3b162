//! Boot entries: load options and the device paths in them.

use crate::name;
use data_encoding::HEXLOWER;
use std::fmt;
use uuid::Uuid;

/// The boot option numbers in a `BootOrder` variable; none if its length is odd.
pub fn boot_order(data: &[u8]) -> Option<Vec<u16>> {
    data.len().is_multiple_of(2).then(|| {
        data.chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect()
    })
}

/// The number in the name of a boot option: `Boot` and four hexadecimal digits. The specification
/// requires upper-case digits; some firmware writes lower-case ones, which are accepted.
pub fn boot_option_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// Why a load option cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadOptionError {
    /// The bytes end before the load option does.
    #[error("the load option is truncated")]
    Truncated,
    /// The description has no terminating NUL.
    #[error("the description of the load option is not terminated")]
    Description,
    /// A node of the device path is shorter than its header, or longer than the rest of the path.
    #[error("the device path of the load option is malformed")]
    DevicePath,
}

/// EFI_LOAD_OPTION (UEFI specification, section 3.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    /// `LOAD_OPTION_*` bits.
    pub attributes: u32,
    /// The text that a boot menu shows.
    pub description: String,
    /// The device to boot from. The instances of a multi-instance path are separated by
    /// [`DevicePathNode::EndInstance`].
    pub device_path: Vec<DevicePathNode>,
    /// Data that is passed to the loaded image.
    pub optional_data: Vec<u8>,
}

/// A node of a device path (UEFI specification, section 10.3).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the specification")]
pub enum DevicePathNode {
    MemoryMapped {
        memory_type: u32,
        start: u64,
        end: u64,
    },
    Vendor {
        guid: Uuid,
        data: Vec<u8>,
    },
    ExpandedAcpi {
        hid: u32,
        uid: u32,
        cid: u32,
        hid_text: String,
        uid_text: String,
        cid_text: String,
    },
    Scsi {
        target: u16,
        lun: u16,
    },
    HardDrive {
        partition: u32,
        start: u64,
        size: u64,
        signature: [u8; 16],
        format: u8,
        signature_type: u8,
    },
    FilePath(String),
    FirmwareFile(Uuid),
    FirmwareVolume(Uuid),
    EndInstance,
    /// A node of another type, or of a known type and an unexpected length.
    Other {
        kind: u8,
        subkind: u8,
        data: Vec<u8>,
    },
}

impl LoadOption {
    /// Decodes a load option. The device path ends at its end node or after FilePathListLength bytes,
    /// whichever comes first; the optional data starts after FilePathListLength bytes.
    pub fn decode(data: &[u8]) -> Result<Self, LoadOptionError> {
        let (head, rest) = data
            .split_first_chunk::<6>()
            .ok_or(LoadOptionError::Truncated)?;
        let attributes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let path_len = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let (description, rest) = name::take_string(rest).ok_or(LoadOptionError::Description)?;
        if path_len > rest.len() {
            return Err(LoadOptionError::Truncated);
        }
        let (mut path, optional) = rest.split_at(path_len);
        let mut device_path = Vec::new();
        while !path.is_empty() {
            let (head, _) = path
                .split_first_chunk::<4>()
                .ok_or(LoadOptionError::DevicePath)?;
            let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
            if len < 4 || len > path.len() {
                return Err(LoadOptionError::DevicePath);
            }
            let (node, next) = path.split_at(len);
            match (head[0], head[1]) {
                (0x7f, 0xff) => break,
                (0x7f, 0x01) => device_path.push(DevicePathNode::EndInstance),
                (kind, subkind) => {
                    device_path.push(DevicePathNode::decode(kind, subkind, &node[4..]));
                }
            }
            path = next;
        }
        Ok(Self {
            attributes,
            description,
            device_path,
            optional_data: optional.to_vec(),
        })
    }
}

/// Takes fields from the front of a byte slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn guid(&mut self) -> Option<Uuid> {
        self.take().map(Uuid::from_bytes_le)
    }

    fn ascii(&mut self) -> Option<String> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

impl DevicePathNode {
    fn decode(kind: u8, subkind: u8, body: &[u8]) -> Self {
        Self::decode_known(kind, subkind, Fields(body)).unwrap_or_else(|| Self::Other {
            kind,
            subkind,
            data: body.to_vec(),
        })
    }

    fn decode_known(kind: u8, subkind: u8, mut f: Fields<'_>) -> Option<Self> {
        let node = match (kind, subkind) {
            (1, 3) => Self::MemoryMapped {
                memory_type: f.u32()?,
                start: f.u64()?,
                end: f.u64()?,
            },
            (1, 4) => {
                return Some(Self::Vendor {
                    guid: f.guid()?,
                    data: f.0.to_vec(),
                });
            }
            (2, 2) => Self::ExpandedAcpi {
                hid: f.u32()?,
                uid: f.u32()?,
                cid: f.u32()?,
                hid_text: f.ascii()?,
                uid_text: f.ascii()?,
                cid_text: f.ascii()?,
            },
            (3, 2) => Self::Scsi {
                target: f.u16()?,
                lun: f.u16()?,
            },
            (4, 1) => Self::HardDrive {
                partition: f.u32()?,
                start: f.u64()?,
                size: f.u64()?,
                signature: f.take()?,
                format: f.take::<1>()?[0],
                signature_type: f.take::<1>()?[0],
            },
            (4, 4) => {
                let (text, _) = name::take_string(f.0)?;
                return Some(Self::FilePath(text));
            }
            (4, 6) => Self::FirmwareFile(f.guid()?),
            (4, 7) => Self::FirmwareVolume(f.guid()?),
            _ => return None,
        };
        f.end(node)
    }
}

/// Follows the text representation of the UEFI specification, section 10.6.
impl fmt::Display for DevicePathNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryMapped {
                memory_type,
                start,
                end,
            } => write!(f, "MemoryMapped({memory_type:#x},{start:#x},{end:#x})"),
            Self::Vendor { guid, data } if data.is_empty() => write!(f, "VenHw({guid})"),
            Self::Vendor { guid, data } => {
                write!(f, "VenHw({guid},{})", HEXLOWER.encode_display(data))
            }
            Self::ExpandedAcpi {
                hid,
                uid,
                cid,
                hid_text,
                uid_text,
                cid_text,
            } => write!(
                f,
                "AcpiEx({hid:#010x},{cid:#010x},{uid:#x},{hid_text:?},{cid_text:?},{uid_text:?})"
            ),
            Self::Scsi { target, lun } => write!(f, "Scsi({target},{lun})"),
            Self::HardDrive {
                partition,
                start,
                size,
                signature,
                format,
                signature_type,
            } => {
                let kind = match format {
                    1 => "MBR",
                    2 => "GPT",
                    _ => "unknown",
                };
                write!(f, "HD({partition},{kind},")?;
                match signature_type {
                    2 => write!(f, "{}", Uuid::from_bytes_le(*signature))?,
                    1 => write!(f, "{}", HEXLOWER.encode_display(&signature[..4]))?,
                    _ => f.write_str("0")?,
                }
                write!(f, ",{start:#x},{size:#x})")
            }
            Self::FilePath(path) => write!(f, "File({path})"),
            Self::FirmwareFile(guid) => write!(f, "FvFile({guid})"),
            Self::FirmwareVolume(guid) => write!(f, "Fv({guid})"),
            Self::EndInstance => f.write_str(","),
            Self::Other {
                kind,
                subkind,
                data,
            } => write!(
                f,
                "Path({kind},{subkind},{})",
                HEXLOWER.encode_display(data)
            ),
        }
    }
}

#[cfg(test)]
#[path = "load_option_test.rs"]
mod tests;
