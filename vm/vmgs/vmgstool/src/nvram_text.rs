//! Printing UEFI variables.

use data_encoding::HEXLOWER;
use std::fmt::Write;
use uefi_nvram_storage::LoadOption;
use uefi_nvram_storage::Variable;
use uefi_nvram_storage::Variables;
use uefi_nvram_storage::boot_option_number;
use uefi_nvram_storage::boot_order;
use uefi_nvram_storage::guid;
use uefi_nvram_storage::signature_lists;

/// Whether timestamps are printed. The older JSON format does not have them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timestamps {
    Shown,
    Hidden,
}

/// The maximum line length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Unlimited,
    Terminal,
}

/// Number of columns of a terminal.
const COLUMNS: usize = 80;

/// The names of signature databases, of any vendor.
const SIGNATURE_DATABASES: [&str; 7] =
    ["KEK", "db", "dbx", "PK", "dbDefault", "MokList", "MokListX"];

/// All variables with their decoded content.
pub(crate) fn text(variables: &Variables, timestamps: Timestamps, width: Width) -> String {
    let mut text = String::new();
    for (key, variable) in variables.iter() {
        let name = key.name.to_string();
        let _ = writeln!(text, "Vendor: \"{}\"", key.vendor);
        let _ = writeln!(text, "Name: {name:?}");
        let _ = writeln!(text, "Attributes: {:#x}", variable.attributes);
        let _ = writeln!(text, "Size: {:#x}", variable.data.len());
        if timestamps == Timestamps::Shown {
            let _ = writeln!(text, "Timestamp: {}", variable.timestamp);
        }
        let known = known_content(&name, variable, width);
        // Content that cannot be decoded is printed as bytes.
        text.push_str(&known.unwrap_or_else(|| data("data: ", &variable.data, width)));
        text.push('\n');
    }
    text
}

fn data(prefix: &str, bytes: &[u8], width: Width) -> String {
    let room = (COLUMNS - prefix.len() - 3) / 2;
    if width == Width::Terminal && bytes.len() > room {
        format!("{prefix}{}...\n", HEXLOWER.encode(&bytes[..room]))
    } else {
        format!("{prefix}{}\n", HEXLOWER.encode(bytes))
    }
}

fn known_content(name: &str, variable: &Variable, width: Width) -> Option<String> {
    let mut text = String::new();
    if name == "BootOrder" {
        let numbers: Vec<String> = boot_order(&variable.data)?
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(text, "Boot Order: {}", numbers.join(", "));
    } else if boot_option_number(name).is_some() {
        let option = LoadOption::decode(&variable.data).ok()?;
        let _ = writeln!(text, "Load Option Attributes: {:#x}", option.attributes);
        let _ = writeln!(text, "Description: {:?}", option.description);
        for node in &option.device_path {
            let _ = writeln!(text, "  {node}");
        }
        if !option.optional_data.is_empty() {
            text.push_str(&data("Optional Data: ", &option.optional_data, width));
        }
    } else if SIGNATURE_DATABASES.contains(&name) {
        for list in signature_lists(&variable.data).ok()? {
            let _ = match list.kind {
                guid::CERT_SHA256 => writeln!(text, "[Sha256]"),
                guid::CERT_X509 => writeln!(text, "[X509]"),
                kind => writeln!(text, "[{kind}]"),
            };
            for signature in &list.signatures {
                let _ = writeln!(text, "Owner: {}", signature.owner);
                text.push_str(&data("Data: ", &signature.data, width));
            }
        }
    } else {
        return None;
    }
    Some(text)
}
