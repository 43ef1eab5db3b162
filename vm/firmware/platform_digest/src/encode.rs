//! The canonical encoding.

use crate::AddressRange;
use crate::BlobDigest;
use crate::Digest;
use crate::DiskContent;
use crate::InvalidView;
use crate::PlatformView;
use crate::view::MAX_BOOT_FILES;
use crate::view::MAX_CPUID;
use crate::view::MAX_DISKS;
use crate::view::MAX_ITEMS;
use crate::view::MAX_PROCESSORS;
use crate::view::MAX_TEXT_LEN;

/// The version of the encoding, and so of its digests.
pub const ENCODING_VERSION: u32 = 2;

/// The version of a view without numbered fields.
pub(crate) const FIRST_VERSION: u32 = 1;

/// The numbers of the fields. They are never used for another.
pub(crate) mod field {
    pub(crate) const DISKS: u16 = 1;
    pub(crate) const PROCESSOR: u16 = 2;
    pub(crate) const BOOT_FILES: u16 = 3;
}

/// The maximum length of all fields, with their numbers and lengths.
pub(crate) const MAX_FIELDS_LEN: usize = 3 * 6
    + 4
    + MAX_DISKS * (8 + 4 + 1 + 1 + 3 * (1 + MAX_TEXT_LEN))
    + 4 * 4
    + MAX_CPUID * (4 + 1 + 4 + 16)
    + 4
    + MAX_BOOT_FILES * (1 + MAX_TEXT_LEN + 40);

/// The maximum length of an encoding, in bytes.
pub const MAX_ENCODED_LEN: usize = 16
    + MAX_ITEMS * 16
    + MAX_ITEMS * (1 + MAX_TEXT_LEN + 16)
    + MAX_PROCESSORS * 4
    + 2 * 40
    + MAX_ITEMS * (2 + 2 * MAX_TEXT_LEN + 4)
    + 4 * 4
    + MAX_FIELDS_LEN;

pub(crate) const MAGIC: [u8; 8] = *b"PLATVIEW";

impl PlatformView {
    /// Encodes the view. Equal machines have equal encodings.
    ///
    /// All integers are little-endian. A text is its length (u8) and its UTF-8 bytes; a list is its length
    /// (u32) and its entries.
    ///
    /// | Bytes | Content |
    /// |---|---|
    /// | 8 | `PLATVIEW` |
    /// | 4 | the version: 1 without fields, otherwise [`ENCODING_VERSION`] |
    /// | 4 | length of all that follows |
    /// | list | RAM by address: start u64, length u64 |
    /// | list | MMIO ranges by name: name text, start u64, length u64 |
    /// | list | APIC ids by processor: u32 |
    /// | 40 | ACPI: length u64, SHA-256 |
    /// | 40 | SMBIOS: the same |
    /// | list | devices by name: name text, identity text, then 0 u8, or 1 u8 and bus, device, function (u8 each) |
    /// | to the end | fields by number: number u16, length u32, content |
    ///
    /// | Field | Content |
    /// |---|---|
    /// | 1 | disks by name, a list: name text, size u64, sector u32, read-only u8, serial text, then 0 u8 (not read), 1 u8 (unknown), or 2 u8 and the content's text |
    /// | 2 | processors: VPs per socket u32, threads per core u32, TSC kHz u32, CPUID list: leaf u32, then 0 u8, or 1 u8 and subleaf u32; EAX, EBX, ECX, EDX u32 |
    /// | 3 | boot files by name, a list: name text, length u64, SHA-256 |
    ///
    /// A field that the machine does not have is left out, and a reader skips those that it does not know. Names are in the order of their bytes.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidView> {
        let view = self.canonical()?;
        let mut body = Vec::new();
        list(&mut body, &view.ram, |out, r| range(out, *r));
        list(&mut body, &view.mmio, |out, mmio| {
            text(out, &mmio.name);
            range(out, mmio.range);
        });
        list(&mut body, &view.apic_ids, |out, id| {
            out.extend_from_slice(&id.to_le_bytes());
        });
        blob(&mut body, &view.acpi);
        blob(&mut body, &view.smbios);
        list(&mut body, &view.devices, |out, device| {
            text(out, &device.name);
            text(out, &device.identity);
            match device.pci {
                None => out.push(0),
                Some(pci) => out.extend_from_slice(&[1, pci.bus, pci.device, pci.function]),
            }
        });
        let fields = fields(&view);
        let version = match fields.is_empty() {
            true => FIRST_VERSION,
            false => ENCODING_VERSION,
        };
        body.extend_from_slice(&fields);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.append(&mut body);
        Ok(bytes)
    }

    /// The SHA-256 of [`PlatformView::encode`].
    pub fn digest(&self) -> Result<Digest, InvalidView> {
        Ok(Digest::of(&self.encode()?))
    }
}

/// The fields that `view` has.
fn fields(view: &PlatformView) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut field = |number: u16, content: Vec<u8>| {
        fields.extend_from_slice(&number.to_le_bytes());
        fields.extend_from_slice(&(content.len() as u32).to_le_bytes());
        fields.extend_from_slice(&content);
    };
    if let Some(disks) = &view.disks {
        let mut content = Vec::new();
        list(&mut content, disks, |out, disk| {
            text(out, &disk.name);
            out.extend_from_slice(&disk.size.to_le_bytes());
            out.extend_from_slice(&disk.sector.to_le_bytes());
            out.push(disk.read_only.into());
            text(out, &disk.serial);
            match &disk.content {
                DiskContent::NotRead => out.push(0),
                DiskContent::Unknown => out.push(1),
                DiskContent::Known(content) => {
                    out.push(2);
                    text(out, content);
                }
            }
        });
        field(field::DISKS, content);
    }
    if let Some(processor) = &view.processor {
        let mut content = Vec::new();
        for value in [
            processor.vps_per_socket,
            processor.threads_per_core,
            processor.tsc_khz,
        ] {
            content.extend_from_slice(&value.to_le_bytes());
        }
        list(&mut content, &processor.cpuid, |out, entry| {
            out.extend_from_slice(&entry.leaf.to_le_bytes());
            out.push(entry.subleaf.is_some().into());
            if let Some(subleaf) = entry.subleaf {
                out.extend_from_slice(&subleaf.to_le_bytes());
            }
            for register in entry.registers {
                out.extend_from_slice(&register.to_le_bytes());
            }
        });
        field(field::PROCESSOR, content);
    }
    if let Some(files) = &view.boot_files {
        let mut content = Vec::new();
        list(&mut content, files, |out, file| {
            text(out, &file.name);
            blob(out, &file.content);
        });
        field(field::BOOT_FILES, content);
    }
    fields
}

// The casts do not truncate: a canonical view is within the limits.

fn list<T>(out: &mut Vec<u8>, entries: &[T], mut entry: impl FnMut(&mut Vec<u8>, &T)) {
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for e in entries {
        entry(out, e);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn range(out: &mut Vec<u8>, range: AddressRange) {
    out.extend_from_slice(&range.start.to_le_bytes());
    out.extend_from_slice(&range.length.to_le_bytes());
}

fn blob(out: &mut Vec<u8>, blob: &BlobDigest) {
    out.extend_from_slice(&blob.length.to_le_bytes());
    out.extend_from_slice(&blob.sha256.0);
}
