//! `--igvm` and its companions.

use super::Options;
use super::config::Errors;
use super::files::check_readable;
use openvmm_defs::config::Igvm;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::IgvmHypervUefi;
use openvmm_defs::config::IgvmPcUefi;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiKernel;
use openvmm_defs::config::UefiVariables;
use std::path::PathBuf;

const NEEDED: &str = "the file does not say which machine its guest expects: give --igvm type=TYPE,path=FILE, or \
                      --igvm FILE with --igvm-personality TYPE, where TYPE is linux (linux-direct) or uefi; \
                      OVMF has the type uefi and profile=pc-uefi";

/// The value of `--igvm`: `FILE`, or keys with values.
#[derive(Debug, PartialEq, Eq)]
struct IgvmValue {
    path: PathBuf,
    guest: Option<GuestType>,
    profile: Option<UefiProfile>,
}

/// The machine of UEFI firmware.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum UefiProfile {
    /// A generation-2 VM of Hyper-V.
    Hyperv,
    /// A PC with flash memory.
    Pc,
}

impl UefiProfile {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "hyperv-uefi" => Ok(Self::Hyperv),
            "pc-uefi" => Ok(Self::Pc),
            _ => Err(format!(
                "profile '{text}' is not one of: hyperv-uefi, pc-uefi"
            )),
        }
    }
}

/// The machine that a guest expects.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum GuestType {
    Linux,
    Uefi,
    OpenHcl,
    Pcat,
}

impl GuestType {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "linux" | "linux-direct" => Ok(Self::Linux),
            "uefi" => Ok(Self::Uefi),
            "openhcl" => Ok(Self::OpenHcl),
            "pcat" => Ok(Self::Pcat),
            _ => Err(format!(
                "type '{text}' is not one of: linux (linux-direct), uefi, openhcl, pcat"
            )),
        }
    }
}

/// Parses a value. It has keys if it begins with one; any other value is a path, whatever it contains. `path=` takes
/// all that follows.
fn parse_igvm(text: &str) -> Result<IgvmValue, String> {
    if text.is_empty() {
        return Err("a file is needed".into());
    }
    if !["type=", "profile=", "path="]
        .iter()
        .any(|key| text.starts_with(key))
    {
        return Ok(IgvmValue {
            path: text.into(),
            guest: None,
            profile: None,
        });
    }
    let (mut guest, mut profile) = (None, None);
    let mut rest = text;
    loop {
        if let Some(path) = rest.strip_prefix("path=") {
            return match path {
                "" => Err("path= needs a file".into()),
                path => Ok(IgvmValue {
                    path: path.into(),
                    guest,
                    profile,
                }),
            };
        }
        let (part, next) = rest.split_once(',').unwrap_or((rest, ""));
        match part.split_once('=') {
            Some(("type", _)) if guest.is_some() => return Err("type is given twice".into()),
            Some(("type", value)) => guest = Some(GuestType::parse(value)?),
            Some(("profile", _)) if profile.is_some() => {
                return Err("profile is given twice".into());
            }
            Some(("profile", value)) => profile = Some(UefiProfile::parse(value)?),
            _ if part.is_empty() => return Err("path=FILE is missing; it comes last".into()),
            _ => {
                return Err(format!(
                    "'{part}' is not one of type=TYPE, profile=PROFILE, path=FILE"
                ));
            }
        }
        rest = next;
    }
}

/// Checks the value of `--igvm-vtl2-relocation-type`, and returns whether the file's addresses are to be changed.
fn parse_relocation(text: &str) -> Result<bool, String> {
    let size = |value: &str| value == "filesize" || super::size::parse_size(value).is_ok();
    let address = |value: &str| match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).is_ok(),
        None => value.parse::<u64>().is_ok(),
    };
    match text.split_once('=') {
        None if text == "disable" => Ok(false),
        Some(("auto" | "vtl2", value)) if size(value) => Ok(true),
        Some(("absolute", value)) if address(value) => Ok(true),
        _ => Err(format!(
            "'{text}' is not one of: disable, auto=filesize, auto=SIZE, absolute=ADDRESS, vtl2=filesize, vtl2=SIZE"
        )),
    }
}

impl Options {
    /// The file of `--igvm`.
    pub(super) fn igvm_file(&self) -> Option<PathBuf> {
        let value = self.igvm.as_deref().map(parse_igvm)?;
        value.ok().map(|value| value.path)
    }

    /// What the options of IGVM files say, if there is any of them.
    pub(super) fn igvm_load_mode(&self, errors: &mut Errors, text: &str) -> Option<LoadMode> {
        let value = errors.take("--igvm", parse_igvm(text).map(Some), None)?;
        check_readable(errors, "--igvm", &value.path);
        let personality = self.igvm_personality.as_deref().and_then(|text| {
            let parsed = match text {
                "linux-direct" | "linux" | "uefi" => GuestType::parse(text).map(Some),
                _ => Err(format!("'{text}' is not one of: linux-direct, uefi")),
            };
            errors.take("--igvm-personality", parsed, None)
        });
        if let (Some(guest), Some(personality)) = (value.guest, personality)
            && guest != personality
        {
            errors.add("--igvm-personality: --igvm has another type");
        }
        let moved = self
            .igvm_vtl2_relocation_type
            .as_deref()
            .map(|text| errors.take("--igvm-vtl2-relocation-type", parse_relocation(text), false));
        let guest = value.guest.or(personality);
        // A profile is that of UEFI firmware.
        let guest = guest.or(value.profile.map(|_| GuestType::Uefi));
        if value.profile.is_some() && guest != Some(GuestType::Uefi) {
            errors.add("--igvm: profile= is for type=uefi");
        }
        let host = match guest {
            Some(GuestType::Linux) => {
                self.check_igvm_linux(errors);
                Some(IgvmHost::Linux)
            }
            Some(GuestType::Uefi) => match value.profile {
                Some(UefiProfile::Pc) => self.igvm_pc_uefi(errors),
                Some(UefiProfile::Hyperv) | None => Some(self.igvm_hyperv_uefi(errors)),
            },
            Some(GuestType::OpenHcl) => {
                errors.add("--igvm: not supported yet: type=openhcl (the OpenHCL paravisor)");
                None
            }
            Some(GuestType::Pcat) => {
                errors.add("--igvm: not supported yet: type=pcat (a PC BIOS and its devices)");
                None
            }
            None if self.igvm_personality.is_some() => None,
            None => {
                errors.add(format!("--igvm: {NEEDED}"));
                None
            }
        }?;
        if moved == Some(true) {
            errors.add(
                "--igvm-vtl2-relocation-type: the addresses in the file are final for this type: only `disable` is \
                 possible",
            );
        }
        Some(LoadMode::Igvm(Igvm {
            file: value.path,
            cmdline: (!self.cmdline.is_empty() && self.kernel.is_none())
                .then(|| self.cmdline.join(" ")),
            host,
        }))
    }

    /// The machine of a generation-2 VM for the firmware in a file.
    fn igvm_hyperv_uefi(&self, errors: &mut Errors) -> IgvmHost {
        self.check_igvm_uefi(errors);
        self.check_generation_2(errors);
        IgvmHost::HypervUefi(IgvmHypervUefi {
            settings: self.hyperv_uefi_settings(errors),
            device: self.uefi_device(errors),
        })
    }

    /// Reports options that contradict a file with UEFI firmware.
    fn check_igvm_uefi(&self, errors: &mut Errors) {
        for (option, given) in [
            ("--uefi", self.uefi),
            ("--uefi-firmware", self.uefi_firmware.is_some()),
            ("--boot-protocol", self.boot_protocol != "auto"),
        ] {
            if given {
                errors.add(format!(
                    "{option} cannot be combined with --igvm: the firmware is in the file"
                ));
            }
        }
    }

    /// The machine of a PC for the firmware in a file. A kernel that is given is started by the firmware.
    fn igvm_pc_uefi(&self, errors: &mut Errors) -> Option<IgvmHost> {
        self.check_igvm_uefi(errors);
        self.check_needs_generation_2(errors);
        if self.initrd.is_some() && self.kernel.is_none() {
            errors.add("--initrd needs --kernel");
        }
        let files = [
            ("--kernel", &self.kernel),
            ("--initrd", &self.initrd),
            ("--uefi-vars", &self.uefi_vars),
        ];
        for (option, path) in files {
            if let Some(path) = path {
                check_readable(errors, option, path);
            }
        }
        Some(IgvmHost::PcUefi(IgvmPcUefi {
            variables: match (&self.uefi_vars, &self.vmgs) {
                (Some(path), _) => UefiVariables::File(path.clone()),
                (None, Some(_)) => UefiVariables::Vmgs,
                (None, None) => UefiVariables::Memory(None),
            },
            kernel: self.kernel.clone().map(|kernel| UefiKernel {
                kernel,
                initrd: self.initrd.clone(),
                cmdline: self.cmdline.join(" "),
            }),
        }))
    }

    /// Reports options that contradict a file with a Linux kernel.
    fn check_igvm_linux(&self, errors: &mut Errors) {
        for (option, given) in [
            ("--kernel", self.kernel.is_some()),
            ("--initrd", self.initrd.is_some()),
            ("--boot-protocol", self.boot_protocol != "auto"),
            ("--uefi", self.uefi),
            ("--uefi-firmware", self.uefi_firmware.is_some()),
            ("--uefi-vars", self.uefi_vars.is_some()),
        ] {
            if given {
                errors.add(format!(
                    "{option} cannot be combined with --igvm: the file has all that is loaded"
                ));
            }
        }
        self.check_needs_uefi(errors);
        self.check_needs_generation_2(errors);
    }
}

#[cfg(test)]
#[path = "igvm_test.rs"]
mod tests;
