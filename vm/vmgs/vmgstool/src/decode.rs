//! Decoding files of known formats.

use crate::firmware;
use crate::firmware::Examined;
use crate::flash_variables;
use crate::nvram_json;
use data_encoding::HEXLOWER;
use ovmf_image::VariablesState;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use std::fmt::Write as _;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::Variables;
use uuid::Uuid;
use vmgs::FileInfo;
use vmgs::Vmgs;
use vmgs_format::FileId;
use vmgs_format::FirmwareFileKind;
use vmgs_format::HibernationToken;

/// The decoded content of a file.
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

    /// A summary of one line.
    pub(crate) fn summary(&self) -> &str {
        &self.summary
    }

    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.summary);
        if let Value::Object(details) = &self.details {
            for (name, value) in details {
                let value = match value {
                    Value::String(value) => value.clone(),
                    Value::Array(entries) => {
                        let _ = writeln!(text, "  {name}:");
                        for entry in entries {
                            let _ = writeln!(text, "    {entry}");
                        }
                        continue;
                    }
                    value => value.to_string(),
                };
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        text
    }

    /// All of it in JSON, with the file's id and sizes.
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

/// Decodes a file. If it cannot be read, the summary says why.
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
    if FirmwareFileKind::applies_to(id) || firmware::is_record(store, id) {
        return firmware(store, id, info);
    }
    Ok(match id {
        FileId::HIBERNATION_TOKEN => token(&store.read_at_most(id, 4096)?),
        FileId::BIOS_NVRAM => nvram(&store.read(id)?),
        FileId::FLASH_VARIABLES => match flash_variables::check(store)? {
            Ok(VariablesState::Intact) => View::new("variables of OVMF", Value::Null),
            Ok(VariablesState::Interrupted) => {
                View::new("variables of OVMF, which was rewriting them", Value::Null)
            }
            Err(error) => View::new(format!("corrupt variables of OVMF: {error}"), Value::Null),
        },
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
                    let guid = Uuid::from_bytes_le(*guid).to_string();
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
            View::new("", json!({ "first_bytes": HEXLOWER.encode(&bytes[..len]) }))
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
            format!("corrupt: {} bytes are not a hibernation token", bytes.len()),
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

/// A writer that hashes what is written to it.
struct Hasher(sha2::Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn firmware(store: &mut Vmgs, id: FileId, info: FileInfo) -> Result<View, vmgs::Error> {
    match firmware::kind(store, id)? {
        FirmwareFileKind::Record | FirmwareFileKind::DamagedRecord => {
            Ok(record(firmware::examine(store, id, &mut ())?))
        }
        FirmwareFileKind::RawImage => {
            let mut hasher = Hasher(sha2::Sha256::new());
            store.read_to(id, &mut hasher)?;
            let sha256 = HEXLOWER.encode(&hasher.0.finalize());
            Ok(View::new(
                "firmware image without a header",
                json!({ "image_len": info.valid_bytes, "sha256": sha256 }),
            ))
        }
        FirmwareFileKind::Other => Ok(View::new(
            "not a firmware image (state of a virtual TPM?)",
            Value::Null,
        )),
    }
}

fn record(examined: Examined) -> View {
    let Examined { record, error } = examined;
    let Some(record) = record else {
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        return View::new(format!("corrupt firmware: {error}"), Value::Null);
    };
    let summary = match &error {
        None => format!(
            "firmware for {} of {} bytes at {:#x}, all digests right",
            record.architecture, record.image_len, record.load_gpa
        ),
        Some(error) => format!("corrupt firmware: {error}"),
    };
    let sections: Vec<_> = record
        .sections
        .iter()
        .map(|section| {
            json!({
                "kind": firmware::section_kind(section.kind),
                "name": section.name,
                "gpa": format!("{:#x}", section.gpa),
                "len": section.len,
                "sha256": section.digest.to_string(),
            })
        })
        .collect();
    let captured = record
        .captured_at()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .map(|since| since.as_secs());
    View::new(
        summary,
        json!({
            "digests_match": error.is_none(),
            "architecture": record.architecture.to_string(),
            "load_gpa": format!("{:#x}", record.load_gpa),
            "image_len": record.image_len,
            "entry_rule": record.entry_rule,
            "entry_gpa": format!("{:#x}", record.entry_gpa),
            "image_id": record.image_id.to_string(),
            "firmware_version": record.firmware_version,
            "image_sha256": record.image_digest.to_string(),
            "platform_sha256": record.platform_digest.to_string(),
            "captured_unix_time": captured,
            "sections": sections,
        }),
    )
}
