//! The description of a machine.

use chipset_device::PciAddress;
use serde::Serialize;
use serde::Serializer;
use sha2::Digest as _;
use sha2::Sha256;
use std::fmt;

/// The maximum length of a name or identity, in bytes.
pub(crate) const MAX_TEXT_LEN: usize = 255;

/// The maximum number of RAM ranges, of MMIO ranges and of devices.
pub(crate) const MAX_ITEMS: usize = 4096;

/// The maximum number of processors.
pub(crate) const MAX_PROCESSORS: usize = 4096;

/// The maximum number of disks.
pub(crate) const MAX_DISKS: usize = 256;

/// The maximum number of CPUID leaves.
pub(crate) const MAX_CPUID: usize = 1024;

/// The maximum number of boot files.
pub(crate) const MAX_BOOT_FILES: usize = 16;

/// Everything about a machine that a guest's hibernation image depends on.
///
/// The order of ranges, devices, disks and boot files does not matter. That of processors does: a processor's index is its position in
/// `apic_ids`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlatformView {
    /// The guest-physical ranges that are RAM. They do not overlap.
    pub ram: Vec<AddressRange>,
    /// The MMIO ranges, such as `pci32` and `ecam`. Names are unique.
    pub mmio: Vec<MmioRange>,
    /// The APIC id of each virtual processor, boot processor first.
    pub apic_ids: Vec<u32>,
    /// The ACPI tables and their loader script.
    pub acpi: BlobDigest,
    /// The SMBIOS structures.
    pub smbios: BlobDigest,
    /// The devices. Names are unique.
    pub devices: Vec<PlatformDevice>,
    /// What is on the disks. Names are unique. `None` in a view of the first version.
    pub disks: Option<Vec<PlatformDisk>>,
    /// What the guest was told of its processors. `None` in a view of the first version.
    pub processor: Option<PlatformProcessor>,
    /// What the VMM gives the firmware to boot, such as a kernel and its command line. Names are unique. `None` in a
    /// view of the first version.
    pub boot_files: Option<Vec<BootFile>>,
}

/// A range of guest-physical addresses, never empty.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AddressRange {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A named range of guest-physical addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MmioRange {
    /// Its name.
    pub name: String,
    /// Its addresses.
    #[serde(flatten)]
    pub range: AddressRange,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformDevice {
    /// The name in the configuration, such as `disk0`.
    pub name: String,
    /// Its PCI address, if it is on the PCI bus.
    #[serde(serialize_with = "serialize_pci")]
    pub pci: Option<PciAddress>,
    /// Its kind, and what distinguishes it from another device of the same kind: a serial number, a MAC address or
    /// a size.
    pub identity: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformDisk {
    /// The name of its device.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The size of a sector, in bytes.
    pub sector: u32,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// The serial number that the guest is told; empty if there is none.
    pub serial: String,
    /// The identity of what is on it.
    pub content: DiskContent,
}

/// The identity of what is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskContent {
    /// It was not read, and is not compared.
    NotRead,
    /// Nothing that has a known identity.
    Unknown,
    /// The kind and identifier of a partition table, file system or volume.
    Known(String),
}

/// What a guest was told of its processors, beside their APIC ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlatformProcessor {
    /// Processors in a full socket.
    pub vps_per_socket: u32,
    /// Hardware threads in a core.
    pub threads_per_core: u32,
    /// The frequency of the time stamp counter; 0 if it is not known.
    pub tsc_khz: u32,
    /// The CPUID table of the boot processor.
    pub cpuid: Vec<CpuidLeaf>,
}

/// An entry of a CPUID table.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize)]
pub struct CpuidLeaf {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input; `None` where the leaf has no subleaves.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX and EDX.
    pub registers: [u32; 4],
}

/// Something that the VMM gives the firmware to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootFile {
    /// What it is, such as `kernel`.
    pub name: String,
    /// Its content.
    pub content: BlobDigest,
}

/// The length and digest of data that is too large to keep.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlobDigest {
    /// Length in bytes; 0 if the machine has no such data.
    pub length: u64,
    /// SHA-256 with names and lengths (see [`BlobDigest::of`]); zero if there is none.
    pub sha256: Digest,
}

/// A SHA-256, printed in hexadecimal.
#[derive(Copy, Clone, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a view cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidView {
    /// A list is too long.
    #[error("{count} {what} are more than the maximum of {limit}")]
    TooMany {
        /// The list.
        what: &'static str,
        /// Its length.
        count: usize,
        /// The maximum length.
        limit: usize,
    },
    /// A name or identity is too long.
    #[error("a {what} of {length} bytes is longer than {MAX_TEXT_LEN}")]
    TextTooLong {
        /// The kind of text.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A name or identity has a control character.
    #[error("a {what} has a control character: {text:?}")]
    ControlCharacter {
        /// The kind of text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two entries have the same name.
    #[error("there are two {what} named {name:?}")]
    DuplicateName {
        /// The list.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A range is empty or exceeds the address space.
    #[error("the range of {length:#x} bytes at {start:#x} is empty or exceeds the address space")]
    Range {
        /// First address.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Two RAM ranges overlap.
    #[error("RAM at {start:#x} overlaps the range before it")]
    RamOverlap {
        /// Start of the second one.
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
    /// The same view with its lists in canonical order, if it can be stored.
    pub(crate) fn canonical(&self) -> Result<Self, InvalidView> {
        let mut view = self.clone();
        view.ram.sort_unstable();
        view.mmio.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        view.devices.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(disks) = &mut view.disks {
            disks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        if let Some(files) = &mut view.boot_files {
            files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
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
        unique("devices", self.devices.iter().map(|d| &d.name))?;
        self.check_details()
    }

    fn check_details(&self) -> Result<(), InvalidView> {
        let disks = self.disks.as_deref().unwrap_or_default();
        at_most(disks.len(), MAX_DISKS, "disks")?;
        for disk in disks {
            text("disk name", &disk.name)?;
            text("serial number", &disk.serial)?;
            if let DiskContent::Known(content) = &disk.content {
                text("content of a disk", content)?;
            }
        }
        unique("disks", disks.iter().map(|d| &d.name))?;
        let cpuid = self.processor.as_ref().map_or(0, |p| p.cpuid.len());
        at_most(cpuid, MAX_CPUID, "CPUID leaves")?;
        let files = self.boot_files.as_deref().unwrap_or_default();
        at_most(files.len(), MAX_BOOT_FILES, "boot files")?;
        for file in files {
            text("boot file name", &file.name)?;
        }
        unique("boot files", files.iter().map(|f| &f.name))
    }

    /// The total size of RAM in bytes.
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
    /// The digest of files in the given order. Each adds the length of its name, the name, the length of its content
    /// and the content; lengths are u64, little-endian.
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

/// Refuses neighbours with the same name.
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
