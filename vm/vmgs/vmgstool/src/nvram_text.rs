//! Printing UEFI variables.

use crate::device_path_text;
use data_encoding::HEXLOWER;
use std::fmt::Write;
use uefi_nvram_storage::LoadOption;
use uefi_nvram_storage::SignatureList;
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

/// Bytes in hexadecimal, after a prefix on the same line.
fn data(prefix: &str, bytes: &[u8], width: Width) -> String {
    let room = (COLUMNS - prefix.len() - 3) / 2;
    if width == Width::Terminal && bytes.len() > room {
        format!("{prefix}{}...\n", HEXLOWER.encode(&bytes[..room]))
    } else {
        format!("{prefix}{}\n", HEXLOWER.encode(bytes))
    }
}

/// Text from a guest on one line: control characters are escaped.
fn one_line(text: &str) -> String {
    let escape = |c: char| -> String {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.into()
        }
    };
    text.chars().map(escape).collect()
}

fn known_content(name: &str, variable: &Variable, width: Width) -> Option<String> {
    if name == "BootOrder" {
        let mut text = String::from("Boot Order:");
        for number in boot_order(&variable.data)? {
            let _ = write!(text, " {number}");
        }
        text.push('\n');
        Some(text)
    } else if boot_option_number(name).is_some() {
        let option = LoadOption::decode(&variable.data).ok()?;
        Some(load_option(&option, width))
    } else if SIGNATURE_DATABASES.contains(&name) {
        Some(signatures(&signature_lists(&variable.data).ok()?, width))
    } else {
        None
    }
}

fn load_option(option: &LoadOption, width: Width) -> String {
    let mut text = format!(
        "Load Option: attributes: {:x}, description: {}\n",
        option.attributes,
        one_line(&option.description)
    );
    for node in option.device_path.iter().filter_map(device_path_text::node) {
        let _ = writeln!(text, "  - {node}");
    }
    if !option.optional_data.is_empty() {
        text.push_str(&data("  - opt: ", &option.optional_data, width));
    }
    text
}

fn signatures(lists: &[SignatureList], width: Width) -> String {
    let mut text = String::from("Signature Lists:\n");
    for list in lists {
        // A list of certificates has one, as their lengths differ. Lists of other types are printed like digests.
        let title = match list.kind {
            guid::CERT_X509 => {
                for signature in &list.signatures {
                    let prefix = format!("  - [X509] Signature Owner: {} Data: ", signature.owner);
                    text.push_str(&data(&prefix, &signature.data, width));
                }
                continue;
            }
            guid::CERT_SHA256 => "Sha256".to_string(),
            kind => kind.to_string(),
        };
        let _ = writeln!(text, "  - [{title}]");
        for signature in &list.signatures {
            let prefix = format!("      - Signature Owner: {} Data: ", signature.owner);
            text.push_str(&data(&prefix, &signature.data, width));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use uefi_nvram_storage::SignatureData;
    use uuid::Uuid;

    #[test]
    fn a_description_cannot_break_the_lines() {
        let option = LoadOption {
            attributes: 1,
            description: "Disk \"é\"\n\u{1b}[2J".into(),
            device_path: Vec::new(),
            optional_data: Vec::new(),
        };
        assert_eq!(
            load_option(&option, Width::Unlimited),
            "Load Option: attributes: 1, description: Disk \"é\"\\n\\u{1b}[2J\n"
        );
    }

    #[test]
    fn signature_lists_have_a_line_for_each_signature() {
        let owner = Uuid::from_u128(0x77fa_9abd_0359_4d32_bd60_28f4_e78f_784b);
        let list = |kind, data: &[&[u8]]| SignatureList {
            kind,
            header: Vec::new(),
            signatures: data
                .iter()
                .map(|data| SignatureData {
                    owner,
                    data: data.to_vec(),
                })
                .collect(),
        };
        let lists = [
            list(guid::CERT_SHA256, &[&[1; 32], &[2; 32]]),
            list(guid::CERT_X509, &[&[3; 40]]),
            list(Uuid::from_u128(5), &[&[4; 2]]),
        ];
        let owner = "77fa9abd-0359-4d32-bd60-28f4e78f784b";
        let expected = |ones: &str, twos: &str, threes: &str| {
            format!(
                "Signature Lists:\n  - [Sha256]\n      - Signature Owner: {owner} Data: {ones}\n      \
                 - Signature Owner: {owner} Data: {twos}\n  - [X509] Signature Owner: {owner} Data: {threes}\n  \
                 - [00000000-0000-0000-0000-000000000005]\n      - Signature Owner: {owner} Data: 0404\n"
            )
        };
        assert_eq!(
            signatures(&lists, Width::Unlimited),
            expected(&"01".repeat(32), &"02".repeat(32), &"03".repeat(40))
        );
        assert_eq!(
            signatures(&lists, Width::Terminal),
            expected("01010101...", "02020202...", "030303...")
        );
    }
}
