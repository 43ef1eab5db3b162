//! Decodes a file of UEFI variables, and checks that what was decoded is the same after encoding and decoding again.

use uefi_nvram_storage::LoadOption;
use uefi_nvram_storage::NameQuirk;
use uefi_nvram_storage::Variables;
use uefi_nvram_storage::boot_order;
use uefi_nvram_storage::signature_lists;

/// Runs one input.
pub(crate) fn run(data: &[u8]) {
    for quirk in [NameQuirk::Refuse, NameQuirk::Skip] {
        let Ok(variables) = Variables::decode(data, quirk) else {
            continue;
        };
        let encoded = variables.encode();
        assert_eq!(encoded.len(), variables.encoded_len());
        assert_eq!(
            Variables::decode(&encoded, NameQuirk::Refuse),
            Ok(variables.clone())
        );
        for (key, variable) in variables.iter() {
            let _ = key.name.to_string();
            let _ = variable.timestamp.to_string();
            structures(&variable.data);
        }
    }
    structures(data);
}

fn structures(data: &[u8]) {
    let _ = boot_order(data);
    let _ = signature_lists(data);
    if let Ok(option) = LoadOption::decode(data) {
        for node in &option.device_path {
            let _ = node.to_string();
        }
    }
}
