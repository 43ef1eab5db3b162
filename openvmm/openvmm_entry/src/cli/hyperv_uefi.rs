//! The options of UEFI firmware of Hyper-V's generation-2 VMs.

use super::Options;
use super::choice::ConsoleChoice;
use super::choice::parse_choice;
use super::config::Errors;
use openvmm_defs::config::BootFailure;
use openvmm_defs::config::DefaultBoot;
use openvmm_defs::config::FirmwareConsole;
use openvmm_defs::config::FirmwareMemoryProtection;
use openvmm_defs::config::HypervUefi;
use openvmm_defs::config::HypervUefiSettings;
use openvmm_defs::config::LoadMode;
use ovmf_image::FirmwareFile;
use ovmf_image::FirmwareKind;
use std::path::Path;

impl Options {
    /// The firmware that was named, if it is that of a generation-2 VM. Whatever else it is, the start finds out.
    pub(super) fn generation_2_firmware(&self) -> Option<&Path> {
        let path = self.uefi_firmware.as_deref()?;
        let file = FirmwareFile::open(path).ok()?;
        matches!(file.kind(), FirmwareKind::Msvm { .. }).then_some(path)
    }

    pub(super) fn hyperv_uefi(&self, errors: &mut Errors, firmware: &Path) -> Option<LoadMode> {
        self.check_generation_2(errors);
        Some(LoadMode::HypervUefi(HypervUefi {
            firmware: firmware.into(),
            settings: self.hyperv_uefi_settings(errors),
            device: self.uefi_device(errors),
        }))
    }

    /// Reports options of other firmware.
    pub(super) fn check_generation_2(&self, errors: &mut Errors) {
        for (option, given) in [
            ("--kernel", self.kernel.is_some()),
            ("--initrd", self.initrd.is_some()),
            ("--cmdline", !self.cmdline.is_empty()),
        ] {
            if given {
                errors.add(format!(
                    "{option}: the firmware of generation-2 VMs starts what is on the disks, and takes no kernel"
                ));
            }
        }
        if self.uefi_vars.is_some() {
            errors.add(
                "--uefi-vars: the firmware of generation-2 VMs has no such file; its variables are kept with --vmgs",
            );
        }
    }

    /// How the firmware behaves.
    pub(super) fn hyperv_uefi_settings(&self, errors: &mut Errors) -> HypervUefiSettings {
        let console = self.uefi_console_mode.as_deref().and_then(|text| {
            let parsed = parse_choice(text).map(Some);
            errors.take("--uefi-console-mode", parsed, None)
        });
        HypervUefiSettings {
            console: console.map(|console| match console {
                ConsoleChoice::Default => FirmwareConsole::Video,
                ConsoleChoice::Com1 => FirmwareConsole::Com1,
                ConsoleChoice::Com2 => FirmwareConsole::Com2,
                ConsoleChoice::None => FirmwareConsole::None,
            }),
            memory_protection: match self.uefi_enable_memory_protections {
                true => FirmwareMemoryProtection::Default,
                false => FirmwareMemoryProtection::Off,
            },
            boot_failure: match self.disable_frontpage {
                true => BootFailure::PowerOff,
                false => BootFailure::FrontPage,
            },
            default_boot: match self.default_boot_always_attempt {
                true => DefaultBoot::Always,
                false => DefaultBoot::WithoutEntries,
            },
            debugger: self.uefi_debug,
            dma_bounce: self.uefi_force_dma_bounce,
        }
    }

    /// Reports options of such firmware, which others do not have.
    pub(super) fn check_needs_generation_2(&self, errors: &mut Errors) {
        for (option, given) in [
            ("--uefi-console-mode", self.uefi_console_mode.is_some()),
            ("--uefi-debug", self.uefi_debug),
            (
                "--uefi-enable-memory-protections",
                self.uefi_enable_memory_protections,
            ),
            ("--uefi-force-dma-bounce", self.uefi_force_dma_bounce),
            ("--disable-frontpage", self.disable_frontpage),
            (
                "--default-boot-always-attempt",
                self.default_boot_always_attempt,
            ),
            ("--secure-boot", self.secure_boot),
            (
                "--secure-boot-template",
                self.secure_boot_template.is_some(),
            ),
            ("--custom-uefi-json", self.custom_uefi_json.is_some()),
            (
                "--efi-diagnostics-log-level",
                self.efi_diagnostics_log_level.is_some(),
            ),
        ] {
            if given {
                errors.add(format!(
                    "{option} needs the firmware of a generation-2 VM of Hyper-V; name it with --uefi-firmware, or give --igvm type=uefi,path=FILE"
                ));
            }
        }
    }
}
