//! The options of what a generation-2 VM's firmware asks its host for: Secure Boot, and its log.

use super::Options;
use super::choice::LogLevelChoice;
use super::choice::parse_choice;
use super::config::Errors;
use firmware_uefi::LogLevel;
use host_file::Allowed;
use openvmm_defs::config::UefiDeviceConfig;
use std::io::Read as _;
use std::path::Path;
use uefi_nvram::CustomVariables;
use uefi_nvram::SecureBoot;
use uefi_nvram::SecureBootKeys;
use uefi_nvram::SecureBootTemplate;

/// More of a file than [`CustomVariables`] accepts is not read.
const MAX_JSON: u64 = 2 << 20;

impl Options {
    /// What the firmware asks for.
    pub(super) fn uefi_device(&self, errors: &mut Errors) -> UefiDeviceConfig {
        let level = self.efi_diagnostics_log_level.as_deref().map(parse_choice);
        let level = level.unwrap_or(Ok(LogLevelChoice::Default));
        let level = errors.take(
            "--efi-diagnostics-log-level",
            level,
            LogLevelChoice::Default,
        );
        UefiDeviceConfig {
            secure_boot: SecureBoot {
                is_enabled: self.secure_boot,
                keys: self.secure_boot_keys(errors),
            },
            log_level: match level {
                LogLevelChoice::Default => LogLevel::Default,
                LogLevelChoice::Info => LogLevel::Info,
                LogLevelChoice::Full => LogLevel::Full,
            },
        }
    }

    /// The keys of a new VM.
    fn secure_boot_keys(&self, errors: &mut Errors) -> SecureBootKeys {
        let template = self.secure_boot_template.as_deref().and_then(|name| {
            let template = name.parse::<SecureBootTemplate>().map(Some);
            let template = template.map_err(|error| error.to_string());
            errors.take("--secure-boot-template", template, None)
        });
        let template = template.map(SecureBootTemplate::keys);
        let Some(path) = &self.custom_uefi_json else {
            return template.unwrap_or_default();
        };
        let keys = custom_keys(path, template)
            .map_err(|error| format!("cannot use {}: {error}", path.display()));
        errors.take("--custom-uefi-json", keys, SecureBootKeys::default())
    }
}

/// The keys of a template with those of a JSON file.
fn custom_keys(path: &Path, template: Option<SecureBootKeys>) -> Result<SecureBootKeys, String> {
    let mut json = Vec::new();
    host_file::open_input(path, Allowed::Regular)
        .and_then(|file| file.take(MAX_JSON).read_to_end(&mut json))
        .map_err(|error| error.to_string())?;
    let keys = CustomVariables::from_json(&json).and_then(|custom| custom.apply(template));
    keys.map_err(|error| error_chain::Chain(&error).to_string())
}
