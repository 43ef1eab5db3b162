//! Decoding a stored view, whose bytes are not trusted.

use crate::AddressRange;
use crate::BlobDigest;
use crate::BootFile;
use crate::CpuidLeaf;
use crate::Digest;
use crate::DiskContent;
use crate::ENCODING_VERSION;
use crate::InvalidView;
use crate::MAX_ENCODED_LEN;
use crate::MmioRange;
use crate::PlatformDevice;
use crate::PlatformDisk;
use crate::PlatformProcessor;
use crate::PlatformView;
use crate::encode::FIRST_VERSION;
use crate::encode::MAGIC;
use crate::encode::field;
use crate::view::MAX_BOOT_FILES;
use crate::view::MAX_CPUID;
use crate::view::MAX_DISKS;
use crate::view::MAX_ITEMS;
use crate::view::MAX_PROCESSORS;
use chipset_device::PciAddress;

/// Why bytes are not a platform view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewDecodeError {
    /// They do not start with the magic number.
    #[error("these bytes are not a platform view")]
    Magic,
    /// The version is unknown.
    #[error(
        "the platform view has version {version}; this program knows versions up to {ENCODING_VERSION}"
    )]
    Version {
        /// The version in the header.
        version: u32,
    },
    /// The length is not that in the header, or too large.
    #[error("the platform view is {actual} bytes long; its header says {expected}")]
    Length {
        /// The length in the header, in bytes.
        expected: u64,
        /// The actual length, in bytes.
        actual: u64,
    },
    /// The bytes end in the middle of an entry.
    #[error("the platform view ends in the middle of {what}")]
    Truncated {
        /// The entry.
        what: &'static str,
    },
    /// A text is not UTF-8.
    #[error("the {what} in the platform view is not UTF-8")]
    Text {
        /// The kind of text.
        what: &'static str,
    },
    /// A value is invalid.
    #[error("the platform view has the invalid value {value:#x} for {what}")]
    Value {
        /// The field.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// The entries are not in canonical order.
    #[error("the {what} in the platform view are out of order")]
    Order {
        /// The list.
        what: &'static str,
    },
    /// No machine has this view.
    #[error("the platform view describes an impossible machine")]
    Invalid(#[from] InvalidView),
}

impl PlatformView {
    /// Decodes a canonical encoding, as made by [`PlatformView::encode`]; refuses any other encoding, but skips fields
    /// with unknown numbers.
    pub fn decode(bytes: &[u8]) -> Result<Self, ViewDecodeError> {
        let mut reader = Reader(bytes);
        if reader.array("the header").ok() != Some(MAGIC) {
            return Err(ViewDecodeError::Magic);
        }
        let version = reader.u32("the header")?;
        if !(FIRST_VERSION..=ENCODING_VERSION).contains(&version) {
            return Err(ViewDecodeError::Version { version });
        }
        let length = reader.u32("the header")?;
        let (expected, actual) = (u64::from(length) + 16, bytes.len() as u64);
        if expected != actual || bytes.len() > MAX_ENCODED_LEN {
            return Err(ViewDecodeError::Length { expected, actual });
        }
        let mut view = Self {
            ram: reader.list("RAM ranges", MAX_ITEMS, |r| r.range("a RAM range"))?,
            mmio: reader.list("MMIO ranges", MAX_ITEMS, |r| {
                Ok(MmioRange {
                    name: r.text("name of an MMIO range")?,
                    range: r.range("an MMIO range")?,
                })
            })?,
            apic_ids: reader.list("processors", MAX_PROCESSORS, |r| r.u32("an APIC id"))?,
            acpi: reader.blob("the digest of the ACPI tables")?,
            smbios: reader.blob("the digest of the SMBIOS structures")?,
            devices: reader.list("devices", MAX_ITEMS, |r| {
                Ok(PlatformDevice {
                    name: r.text("device name")?,
                    identity: r.text("device identity")?,
                    pci: r.pci()?,
                })
            })?,
            ..Self::default()
        };
        if version != FIRST_VERSION {
            reader.fields(&mut view)?;
        }
        if !reader.0.is_empty() {
            return Err(ViewDecodeError::Length {
                expected: actual - reader.0.len() as u64,
                actual,
            });
        }
        ordered("RAM ranges", view.ram.is_sorted())?;
        ordered("MMIO ranges", view.mmio.is_sorted_by_key(|m| &m.name))?;
        ordered("devices", view.devices.is_sorted_by_key(|d| &d.name))?;
        let disks = view.disks.as_deref().unwrap_or_default();
        ordered("disks", disks.is_sorted_by_key(|d| &d.name))?;
        let files = view.boot_files.as_deref().unwrap_or_default();
        ordered("boot files", files.is_sorted_by_key(|f| &f.name))?;
        view.check_sorted()?;
        Ok(view)
    }
}

fn ordered(what: &'static str, is_sorted: bool) -> Result<(), ViewDecodeError> {
    if is_sorted {
        Ok(())
    } else {
        Err(ViewDecodeError::Order { what })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ViewDecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(ViewDecodeError::Truncated { what })?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, ViewDecodeError> {
        self.array(what).map(u8::from_le_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, ViewDecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, ViewDecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reads a list. Memory grows with the entries that are there, not with the claimed count.
    fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, ViewDecodeError>,
    ) -> Result<Vec<T>, ViewDecodeError> {
        let count = self.u32(what)? as usize;
        if count > limit {
            return Err(InvalidView::TooMany { what, count, limit }.into());
        }
        (0..count).map(|_| entry(self)).collect()
    }

    fn text(&mut self, what: &'static str) -> Result<String, ViewDecodeError> {
        let length = usize::from(self.u8(what)?);
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ViewDecodeError::Truncated { what })?;
        self.0 = rest;
        let text = str::from_utf8(text).map_err(|_| ViewDecodeError::Text { what })?;
        Ok(text.to_owned())
    }

    fn range(&mut self, what: &'static str) -> Result<AddressRange, ViewDecodeError> {
        Ok(AddressRange {
            start: self.u64(what)?,
            length: self.u64(what)?,
        })
    }

    fn blob(&mut self, what: &'static str) -> Result<BlobDigest, ViewDecodeError> {
        Ok(BlobDigest {
            length: self.u64(what)?,
            sha256: Digest(self.array(what)?),
        })
    }

    /// Reads the fields, to the end.
    fn fields(&mut self, view: &mut PlatformView) -> Result<(), ViewDecodeError> {
        // A view without fields has the first version.
        let mut last = None;
        while last.is_none() || !self.0.is_empty() {
            let what = "a field";
            let number = self.array(what).map(u16::from_le_bytes)?;
            let length = self.u32(what)? as usize;
            let (content, rest) = self
                .0
                .split_at_checked(length)
                .ok_or(ViewDecodeError::Truncated { what })?;
            self.0 = rest;
            ordered("fields", last.is_none_or(|last| last < number))?;
            last = Some(number);
            let mut content = Reader(content);
            match number {
                field::DISKS => view.disks = Some(content.disks()?),
                field::PROCESSOR => view.processor = Some(content.processor()?),
                field::BOOT_FILES => view.boot_files = Some(content.boot_files()?),
                _ => continue,
            }
            if !content.0.is_empty() {
                return Err(ViewDecodeError::Length {
                    expected: (length - content.0.len()) as u64,
                    actual: length as u64,
                });
            }
        }
        Ok(())
    }

    fn disks(&mut self) -> Result<Vec<PlatformDisk>, ViewDecodeError> {
        self.list("disks", MAX_DISKS, |r| {
            Ok(PlatformDisk {
                name: r.text("disk name")?,
                size: r.u64("a disk")?,
                sector: r.u32("a disk")?,
                read_only: r.choice("whether a disk is read-only", 2)? == 1,
                serial: r.text("serial number of a disk")?,
                content: match r.choice("the content of a disk", 3)? {
                    0 => DiskContent::NotRead,
                    1 => DiskContent::Unknown,
                    _ => DiskContent::Known(r.text("content of a disk")?),
                },
            })
        })
    }

    fn processor(&mut self) -> Result<PlatformProcessor, ViewDecodeError> {
        let what = "the processors";
        Ok(PlatformProcessor {
            vps_per_socket: self.u32(what)?,
            threads_per_core: self.u32(what)?,
            tsc_khz: self.u32(what)?,
            cpuid: self.list("CPUID leaves", MAX_CPUID, |r| {
                let what = "a CPUID leaf";
                Ok(CpuidLeaf {
                    leaf: r.u32(what)?,
                    subleaf: match r.choice("a CPUID leaf", 2)? {
                        0 => None,
                        _ => Some(r.u32(what)?),
                    },
                    registers: [r.u32(what)?, r.u32(what)?, r.u32(what)?, r.u32(what)?],
                })
            })?,
        })
    }

    fn boot_files(&mut self) -> Result<Vec<BootFile>, ViewDecodeError> {
        self.list("boot files", MAX_BOOT_FILES, |r| {
            Ok(BootFile {
                name: r.text("boot file name")?,
                content: r.blob("a boot file")?,
            })
        })
    }

    /// One of the first `count` numbers.
    fn choice(&mut self, what: &'static str, count: u8) -> Result<u8, ViewDecodeError> {
        let choice = self.u8(what)?;
        match choice < count {
            true => Ok(choice),
            false => Err(ViewDecodeError::Value {
                what,
                value: choice.into(),
            }),
        }
    }

    fn pci(&mut self) -> Result<Option<PciAddress>, ViewDecodeError> {
        let what = "the place of a device";
        match self.u8(what)? {
            0 => Ok(None),
            1 => {
                let [bus, device, function] = self.array(what)?;
                Ok(Some(PciAddress {
                    bus,
                    device,
                    function,
                }))
            }
            value => Err(ViewDecodeError::Value {
                what,
                value: value.into(),
            }),
        }
    }
}
