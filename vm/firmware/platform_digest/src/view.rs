//! The machine as its guest sees it.

use chipset_device::PciAddress;
use serde::Serialize;
use serde::Serializer;
use sha2::Digest as _;
use sha2::Sha256;
use std::fmt;

/// The longest name or identity, in bytes.
pub(crate) const MAX_TEXT_LEN: usize = 255;

/// The most RAM ranges, MMIO ranges, or devices.
pub(crate) const MAX_ITEMS: usize = 4096;

/// The most processors.
pub(crate) const MAX_PROCESSORS: usize = 4096;

/// Everything about a machine that a guest's hibernation image takes for granted.
///
/// The order in which ranges and devices are listed does not matter, except that a processor's index is its
/// place in `apic_ids`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlatformView {
    /// The guest-physical ranges that are RAM. They do not overlap.
    pub ram: Vec<AddressRange>,
    /// The ranges set aside for devices' registers, by name (`pci32`, `ecam`, ...). Names are unique.
    pub mmio: Vec<MmioRange>,
    /// The APIC id of each virtual processor, boot processor first.
    pub apic_ids: Vec<u32>,
    /// The ACPI tables and what links them.
    pub acpi: BlobDigest,
    /// The SMBIOS structures.
    pub smbios: BlobDigest,
    /// The devices. Names are unique.
    pub devices: Vec<Device>,
}

/// A range of guest-physical addresses, never empty.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AddressRange {
    /// First address.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

/// A named range of guest-physical addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MmioRange {
    /// What it is for.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub range: AddressRange,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The name in the configuration, such as `disk0`.
    pub name: String,
    /// Where on the PCI bus it is, if it is there.
    #[serde(serialize_with = "serialize_pci")]
    pub pci: Option<PciAddress>,
    /// What tells it from another device of its name: its kind, and a serial number, a MAC address or a size.
    pub identity: String,
}

/// The length and digest of bytes that are too many to keep.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlobDigest {
    /// How many bytes there are; 0 if the machine has no such thing.
    pub length: u64,
    /// Their SHA-256 with names and lengths (see [`BlobDigest::of`]), or zero if there are none.
    pub sha256: Digest,
}

/// A SHA-256, printed in hexadecimal.
#[derive(Copy, Clone, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// A view that no machine can have, or that is too large to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidView {
    /// A list has more entries than a stored view may have.
    #[error("{count} {what} are more than the {limit} that a platform view can hold")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A name or identity is too long.
    #[error("a {what} of {length} bytes is longer than {MAX_TEXT_LEN}")]
    TextTooLong {
        /// What kind of text.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A name or identity that would garble a terminal.
    #[error("a {what} has a control character: {text:?}")]
    ControlCharacter {
        /// What kind of text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two entries have one name.
    #[error("there are two {what} named {name:?}")]
    DuplicateName {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A range is empty or goes past the end of the address space.
    #[error("the range of {length:#x} bytes at {start:#x} is empty or goes past the last address")]
    Range {
        /// First address.
        start: u64,
        /// How many bytes.
        length: u64,
    },
    /// Two RAM ranges overlap.
    #[error("RAM at {start:#x} overlaps the range before it")]
    RamOverlap {
        /// Start of the later one.
        start: u64,
    },
    /// A PCI address has a device or function number that does not exist.
    #[error("there is no PCI function {address}")]
    PciAddress {
        /// The address.
        address: PciAddress,
    },
}

impl PlatformView {
    /// The same view with its lists in canonical order; an error if it cannot be stored.
    pub(crate) fn canonical(&self) -> Result<Self, InvalidView> {
        let mut view = self.clone();
        view.ram.sort_unstable();
        view.mmio.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        view.devices.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        view.check_sorted()?;
        Ok(view)
    }

    /// Checks a view whose lists are in canonical order.
    pub(crate) fn check_sorted(&self) -> Result<(), InvalidView> {
        at_most(self.ram.len(), MAX_ITEMS, "RAM ranges")?;
        at_most(self.mmio.len(), MAX_ITEMS, "MMIO ranges")?;
        at_most(self.apic_ids.len(), MAX_PROCESSORS, "processors")?;
        at_most(self.devices.len(), MAX_ITEMS, "devices")?;
        let mut end = 0;
        for range in &self.ram {
            if range.start < end {
                return Err(InvalidView::RamOverlap { start: range.start });
            }
            end = range.checked_end()?;
        }
        for mmio in &self.mmio {
            text("name of an MMIO range", &mmio.name)?;
            mmio.range.checked_end()?;
        }
        for device in &self.devices {
            text("device name", &device.name)?;
            text("device identity", &device.identity)?;
            if let Some(address) = device.pci
                && (address.device > 31 || address.function > 7)
            {
                return Err(InvalidView::PciAddress { address });
            }
        }
        unique("MMIO ranges", self.mmio.iter().map(|m| &m.name))?;
        unique("devices", self.devices.iter().map(|d| &d.name))
    }

    /// How much RAM there is, in bytes.
    pub fn ram_size(&self) -> u64 {
        self.ram
            .iter()
            .fold(0, |size: u64, range| size.saturating_add(range.length))
    }
}

impl AddressRange {
    /// The range of `length` bytes from `start`.
    pub fn new(start: u64, length: u64) -> Self {
        Self { start, length }
    }

    fn checked_end(self) -> Result<u64, InvalidView> {
        let invalid = InvalidView::Range {
            start: self.start,
            length: self.length,
        };
        if self.length == 0 {
            return Err(invalid);
        }
        self.start.checked_add(self.length).ok_or(invalid)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.start.saturating_add(self.length.saturating_sub(1));
        write!(f, "{:#x}-{last:#x}", self.start)
    }
}

impl BlobDigest {
    /// The digest of files: for each, the length of its name, the name, the length of its bytes (both
    /// lengths 64 bits, little-endian), and the bytes, in the order given.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hasher = Sha256::new();
        let mut length = 0u64;
        let mut any = false;
        for (name, bytes) in files {
            any = true;
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
            length = length.saturating_add(bytes.len() as u64);
        }
        if !any {
            return Self::default();
        }
        Self {
            length,
            sha256: Digest(hasher.finalize().into()),
        }
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn serialize_pci<S: Serializer>(
    address: &Option<PciAddress>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    address.map(|a| a.to_string()).serialize(serializer)
}

fn at_most(count: usize, limit: usize, what: &'static str) -> Result<(), InvalidView> {
    if count > limit {
        return Err(InvalidView::TooMany { what, count, limit });
    }
    Ok(())
}

fn text(what: &'static str, text: &str) -> Result<(), InvalidView> {
    if text.len() > MAX_TEXT_LEN {
        let length = text.len();
        return Err(InvalidView::TextTooLong { what, length });
    }
    if text.contains(char::is_control) {
        let text = text.to_owned();
        return Err(InvalidView::ControlCharacter { what, text });
    }
    Ok(())
}

/// Refuses neighbours with one name.
fn unique<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), InvalidView> {
    let mut before = None;
    for name in names {
        if before.replace(name) == Some(name) {
            let name = name.clone();
            return Err(InvalidView::DuplicateName { what, name });
        }
    }
    Ok(())
}
