//! The canonical encoding.

use crate::AddressRange;
use crate::BlobDigest;
use crate::Digest;
use crate::InvalidView;
use crate::PlatformView;
use crate::view::MAX_ITEMS;
use crate::view::MAX_PROCESSORS;
use crate::view::MAX_TEXT_LEN;

/// The version of the encoding, and so of its digests.
pub const ENCODING_VERSION: u32 = 1;

/// The maximum length of an encoding, in bytes.
pub const MAX_ENCODED_LEN: usize = 16
    + MAX_ITEMS * 16
    + MAX_ITEMS * (1 + MAX_TEXT_LEN + 16)
    + MAX_PROCESSORS * 4
    + 2 * 40
    + MAX_ITEMS * (2 + 2 * MAX_TEXT_LEN + 4)
    + 4 * 4;

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
    /// | 4 | [`ENCODING_VERSION`] |
    /// | 4 | length of all that follows |
    /// | list | RAM by address: start u64, length u64 |
    /// | list | MMIO ranges by name: name text, start u64, length u64 |
    /// | list | APIC ids by processor: u32 |
    /// | 40 | ACPI: length u64, SHA-256 |
    /// | 40 | SMBIOS: the same |
    /// | list | devices by name: name text, identity text, then 0 u8, or 1 u8 and bus, device, function (u8 each) |
    ///
    /// Names are in the order of their bytes.
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
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&ENCODING_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.append(&mut body);
        Ok(bytes)
    }

    /// The SHA-256 of [`PlatformView::encode`].
    pub fn digest(&self) -> Result<Digest, InvalidView> {
        Ok(Digest::of(&self.encode()?))
    }
}

// The casts below do not truncate: a canonical view is within the limits.

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
