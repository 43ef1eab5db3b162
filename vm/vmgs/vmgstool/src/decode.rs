//! What is in the files whose format is known.

use crate::nvram_json;
use crate::output;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use std::fmt::Write as _;
use uefi_nvram_storage::Guid;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::Variables;
use vmgs::FileInfo;
use vmgs::Vmgs;
use vmgs_format::FIRMWARE_IMAGE_HEADER_LEN;
use vmgs_format::FileId;
use vmgs_format::FirmwareFileKind;
use vmgs_format::FirmwareImageHeader;
use vmgs_format::HibernationToken;

/// What a file means.
pub(crate) struct View {
    summary: String,
    details: Value,
}

impl View {
    fn new(summary: impl Into<String>, details: Value) -> Self {
        Self {
            summary: summary.into(),
            details,
        }
    }

    /// In a few words.
    pub(crate) fn summary(&self) -> &str {
        &self.summary
    }

    /// In full.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.summary);
        if let Value::Object(details) = &self.details {
            for (name, value) in details {
                let value = match value {
                    Value::String(value) => value.clone(),
                    value => value.to_string(),
                };
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        text
    }

    pub(crate) fn json(&self, id: FileId, info: FileInfo) -> Value {
        json!({
            "id": id.0,
            "name": id.name(),
            "valid_bytes": info.valid_bytes,
            "allocated_bytes": info.allocated_bytes,
            "encrypted": info.encrypted,
            "summary": self.summary,
            "content": self.details,
        })
    }
}

/// Looks into a file. What cannot be read says why.
pub(crate) fn view(store: &mut Vmgs, id: FileId, info: FileInfo) -> View {
    if store.is_locked() && info.encrypted {
        return View::new("encrypted", Value::Null);
    }
    match try_view(store, id, info) {
        Ok(view) => view,
        Err(error) => View::new(format!("unreadable: {error}"), Value::Null),
    }
}

fn try_view(store: &mut Vmgs, id: FileId, info: FileInfo) -> Result<View, vmgs::Error> {
    if FirmwareFileKind::applies_to(id) {
        return firmware(store, id, info);
    }
    Ok(match id {
        FileId::HIBERNATION_TOKEN => token(&store.read_at_most(id, 4096)?),
        FileId::BIOS_NVRAM => nvram(&store.read(id)?),
        FileId::RTC_SKEW => {
            let bytes = store.read_at_most(id, 4096)?;
            match bytes.as_slice().try_into().map(i64::from_le_bytes) {
                Ok(skew) => View::new(
                    format!("guest clock {:+.3} s from the host's", skew as f64 / 1e7),
                    json!({ "skew_100ns": skew }),
                ),
                Err(_) => View::new("malformed", Value::Null),
            }
        }
        FileId::VM_UNIQUE_ID => {
            let bytes = store.read_at_most(id, 4096)?;
            match bytes.first_chunk() {
                Some(guid) => {
                    let guid = Guid::from_efi(*guid).to_string();
                    View::new(guid.clone(), json!({ "guid": guid }))
                }
                None => View::new("malformed", Value::Null),
            }
        }
        FileId::GUEST_WATCHDOG => match store.read_at_most(id, 4096)?.as_slice() {
            [0] => View::new("last boot was fine", json!({ "failed": false })),
            [1] => View::new("last boot failed by watchdog", json!({ "failed": true })),
            _ => View::new("malformed", Value::Null),
        },
        FileId::CUSTOM_UEFI | FileId::PROVISIONING_MARKER => {
            match serde_json::from_slice::<Value>(&store.read(id)?) {
                Ok(value) => View::new("JSON document", value),
                Err(error) => View::new(format!("malformed JSON: {error}"), Value::Null),
            }
        }
        _ => {
            let mut bytes = [0; 16];
            let len = store.read_range(id, 0, &mut bytes)?;
            View::new("", json!({ "first_bytes": output::hex(&bytes[..len]) }))
        }
    })
}

fn token(bytes: &[u8]) -> View {
    match HibernationToken::from_bytes(bytes) {
        Some(token) => View::new(
            token.to_string(),
            json!({
                "token": format!("{:#x}", token.0),
                "firmware_version": token.firmware_version().map(|(major, minor)| format!("{major}.{minor}")),
            }),
        ),
        None => View::new(
            format!("corrupt: {} bytes are no hibernation token", bytes.len()),
            Value::Null,
        ),
    }
}

fn nvram(bytes: &[u8]) -> View {
    match Variables::decode(bytes, NameQuirk::Skip) {
        Ok(variables) => View::new(
            format!("{} UEFI variables", variables.len()),
            json!({ "variables": nvram_json::variables(&variables) }),
        ),
        Err(error) => View::new(format!("malformed: {error}"), Value::Null),
    }
}

/// Hashes what is written to it, after the first bytes.
struct Hasher<H> {
    skip: usize,
    hash: H,
}

impl<H: Digest> std::io::Write for Hasher<H> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.hash.update(&bytes[skipped..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn digest<H: Digest>(store: &mut Vmgs, id: FileId, skip: usize) -> Result<Vec<u8>, vmgs::Error> {
    let mut hasher = Hasher {
        skip,
        hash: H::new(),
    };
    store.read_to(id, &mut hasher)?;
    Ok(hasher.hash.finalize().to_vec())
}

fn firmware(store: &mut Vmgs, id: FileId, info: FileInfo) -> Result<View, vmgs::Error> {
    let mut prefix = [0; FIRMWARE_IMAGE_HEADER_LEN];
    let len = store.read_range(id, 0, &mut prefix)?;
    let header = match FirmwareFileKind::classify(info.valid_bytes, &prefix[..len]) {
        FirmwareFileKind::Image(header) => header,
        FirmwareFileKind::DamagedImage => {
            return Ok(View::new("corrupt: damaged firmware image", Value::Null));
        }
        FirmwareFileKind::RawImage => {
            let sha256 = output::hex(&digest::<sha2::Sha256>(store, id, 0)?);
            return Ok(View::new(
                "firmware image without a header",
                json!({ "image_len": info.valid_bytes, "sha256": sha256 }),
            ));
        }
        FirmwareFileKind::Other => {
            return Ok(View::new(
                "not a firmware image (state of a virtual TPM?)",
                Value::Null,
            ));
        }
    };
    let found = match header.digest_algorithm.get() {
        FirmwareImageHeader::SHA256 => Some((
            "SHA-256",
            digest::<sha2::Sha256>(store, id, FIRMWARE_IMAGE_HEADER_LEN)?,
        )),
        FirmwareImageHeader::SHA384 => Some((
            "SHA-384",
            digest::<sha2::Sha384>(store, id, FIRMWARE_IMAGE_HEADER_LEN)?,
        )),
        _ => None,
    };
    let (algorithm, matches, digest_len) = match &found {
        Some((name, found)) => (
            *name,
            Some(header.image_digest[..found.len()] == found[..]),
            found.len(),
        ),
        None => ("unknown", None, header.image_digest.len()),
    };
    let summary = match matches {
        Some(true) => format!("firmware image of {} bytes, digest right", header.image_len),
        Some(false) => "corrupt: firmware image with a wrong digest".into(),
        None => "firmware image with an unknown digest".into(),
    };
    let architecture = match header.architecture.get() {
        FirmwareImageHeader::X86_64 => "x86_64",
        FirmwareImageHeader::AARCH64 => "aarch64",
        _ => "unknown",
    };
    Ok(View::new(
        summary,
        json!({
            "architecture": architecture,
            "load_gpa": format!("{:#x}", header.load_gpa),
            "image_len": header.image_len.get(),
            "region_len": header.region_len.get(),
            "entry_offset": format!("{:#x}", header.entry_offset),
            "image_id": Guid::from_efi(header.image_id).to_string(),
            "firmware_version": header.firmware_version.get(),
            "digest_algorithm": algorithm,
            "digest": output::hex(&header.image_digest[..digest_len]),
            "digest_matches": matches,
            "platform_digest": output::hex(&header.platform_digest),
            "capture_time_100ns_since_1601": header.capture_time.get(),
        }),
    ))
}
