//! The options that select what the VM boots.

use super::Options;
use super::choice::ProtocolChoice;
use super::choice::parse_choice;
use super::config::Errors;
use super::files::check_if_exists;
use super::files::check_readable;
use super::vmgs::StoreKind;
use super::vmgs::parse_store;
use host_file::Allowed;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::LinuxDirect;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::UefiKernel;
use openvmm_defs::config::UefiVariables;
use ovmf_image::Installed;
use std::path::Path;
use std::path::PathBuf;

impl Options {
    /// What the VM boots: UEFI firmware if any of its options is given, else a Linux kernel.
    pub(super) fn load_mode(&self, errors: &mut Errors) -> Option<LoadMode> {
        let protocol = parse_choice(&self.boot_protocol);
        let protocol = match errors.take("--boot-protocol", protocol, ProtocolChoice::Auto) {
            ProtocolChoice::Auto => BootProtocol::Auto,
            ProtocolChoice::Linux64 => BootProtocol::Linux64,
            ProtocolChoice::Pvh => BootProtocol::Pvh,
        };
        if let Some(igvm) = &self.igvm {
            return self.igvm_load_mode(errors, igvm);
        }
        for (option, path) in [("--initrd", &self.initrd), ("--kernel", &self.kernel)] {
            if let Some(path) = path {
                check_readable(errors, option, path);
            }
        }
        if let Some(firmware) = self.generation_2_firmware() {
            return self.hyperv_uefi(errors, firmware);
        }
        self.check_needs_generation_2(errors);
        if self.uefi || self.uefi_firmware.is_some() || self.uefi_vars.is_some() {
            return self.pc_uefi(errors, protocol);
        }
        self.check_needs_uefi(errors);
        let Some(kernel) = &self.kernel else {
            errors.add(
                "nothing to boot: give a Linux kernel with --kernel FILE, UEFI firmware with --uefi, or an IGVM file with --igvm",
            );
            return None;
        };
        Some(LoadMode::LinuxDirect(LinuxDirect {
            kernel: kernel.clone(),
            initrd: self.initrd.clone(),
            cmdline: self.cmdline.join(" "),
            protocol,
        }))
    }

    /// Reports options of firmware's state, which a guest without firmware does not have.
    pub(super) fn check_needs_uefi(&self, errors: &mut Errors) {
        if self.vmgs.is_some() {
            errors.add(
                "--vmgs needs --uefi: a kernel that is started directly has no state to keep there",
            );
        }
        if self.hibernation_override.is_some() {
            errors.add(
                "--hibernation-override needs --uefi: only the firmware of a hibernated guest is stored",
            );
        }
    }

    /// Whether there is a store with which a hibernated guest may resume.
    fn may_resume(&self) -> bool {
        let store = self.vmgs.as_deref().and_then(|text| parse_store(text).ok());
        let exists = match store.map(|spec| spec.kind) {
            Some(StoreKind::File(path) | StoreKind::Overlay(path)) => path.exists(),
            Some(StoreKind::Memory { .. }) | None => false,
        };
        exists && self.hibernation == "on"
    }

    fn pc_uefi(&self, errors: &mut Errors, protocol: BootProtocol) -> Option<LoadMode> {
        if protocol != BootProtocol::Auto {
            errors.add("--boot-protocol cannot be combined with --uefi: the firmware enters the kernel by its EFI stub");
        }
        if self.kernel.is_none() && (self.initrd.is_some() || !self.cmdline.is_empty()) {
            errors.add("--initrd and --cmdline need --kernel");
        }
        let installed = match &self.uefi_firmware {
            Some(code) => {
                // A hibernated guest resumes on its stored firmware. Without one, the start tells what is wrong.
                match self.may_resume() {
                    true => check_if_exists(errors, "--uefi-firmware", code, Allowed::Regular),
                    false => check_readable(errors, "--uefi-firmware", code),
                }
                Some(Installed {
                    code: code.clone(),
                    template: None,
                })
            }
            None => {
                let installed = find_installed().or_else(|error| match searched_place() {
                    Some(code) if self.may_resume() => Ok(Installed {
                        code,
                        template: None,
                    }),
                    _ => Err(error),
                });
                errors.take("--uefi", installed.map(Some), None)
            }
        };
        if let Some(vars) = &self.uefi_vars {
            check_readable(errors, "--uefi-vars", vars);
        }
        let Installed { code, template } = installed?;
        Some(LoadMode::PcUefi(PcUefi {
            code,
            variables: match (&self.uefi_vars, &self.vmgs) {
                (Some(path), _) => UefiVariables::File(path.clone()),
                (None, Some(_)) => UefiVariables::Vmgs,
                (None, None) => UefiVariables::Memory(template),
            },
            kernel: self.kernel.clone().map(|kernel| UefiKernel {
                kernel,
                initrd: self.initrd.clone(),
                cmdline: self.cmdline.join(" "),
            }),
        }))
    }
}

/// Where firmware would be, if it were installed.
fn searched_place() -> Option<PathBuf> {
    ovmf_image::searched_places().next()
}

/// Finds the firmware that the host's distribution installed, and prints which one it is.
fn find_installed() -> Result<Installed, String> {
    match ovmf_image::installed(Path::new("/")).next() {
        Some(installed) => {
            crate::message::message!("openvmm: using the firmware {}", installed.code.display());
            Ok(installed)
        }
        None => {
            let places: Vec<_> = ovmf_image::searched_places()
                .map(|place| place.display().to_string())
                .collect();
            Err(format!(
                "no firmware is installed (looked for {}); install the package ovmf, or give a file with \
                 --uefi-firmware",
                places.join(", ")
            ))
        }
    }
}
