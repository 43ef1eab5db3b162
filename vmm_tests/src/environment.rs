//! The environment of the tests: the program under test, and the files of guests.

use anyhow::Context;
use std::path::PathBuf;

/// What `cargo xtask test` passes to the tests in environment variables.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `VMM_TESTS_OPENVMM`: the program under test.
    pub openvmm: PathBuf,
    /// `VMM_TESTS_IGVMFILEGEN`: the generator of IGVM files.
    pub igvmfilegen: PathBuf,
    /// `VMM_TESTS_KERNEL`: a Linux boot image.
    pub kernel: PathBuf,
    /// `VMM_TESTS_INITRD`: an initramfs whose init executes commands from the kernel's command line and the console.
    pub initrd: PathBuf,
    /// `VMM_TESTS_KERNEL_13` and `VMM_TESTS_INITRD_13`: the same of Debian 13.
    pub kernel_13: PathBuf,
    /// See [`Self::kernel_13`].
    pub initrd_13: PathBuf,
    /// `VMM_TESTS_OVMF_CODE_4M` and `VMM_TESTS_OVMF_VARS_4M`: UEFI firmware for 4 MiB of flash.
    pub ovmf_4m: OvmfBuild,
    /// `VMM_TESTS_OVMF_CODE_2M` and `VMM_TESTS_OVMF_VARS_2M`: the same firmware built for 2 MiB of flash, which
    /// lays out memory differently.
    pub ovmf_2m: OvmfBuild,
    /// `VMM_TESTS_OVMF_CODE_13` and `VMM_TESTS_OVMF_VARS_13`: Debian 13's firmware for 4 MiB of flash, which puts PCI
    /// configuration space and functions elsewhere.
    pub ovmf_13: OvmfBuild,
    /// `VMM_TESTS_TEST_FIRMWARE`: the firmware of a generation-2 VM that tests its machine.
    pub test_firmware: PathBuf,
    /// `VMM_TESTS_BOOT_DISK`: a disk whose EFI system partition holds the kernel and the initramfs.
    pub boot_disk: PathBuf,
    /// `VMM_TESTS_INSTALLED_DISK`: a disk with an installation of Debian 13, which root logs in to on the serial console. One
    /// test may change it.
    pub installed_disk: Option<PathBuf>,
    /// `VMM_TESTS_EMULATED=1`: the machine is emulated in software; an exit from the guest takes some hundred times
    /// longer than on a real machine.
    pub emulated: bool,
    /// `VMM_TESTS_FROM_INPUT=1`: the names of the tests to run come from standard input, a line for each.
    pub from_input: bool,
}

impl Environment {
    /// The same with Debian 13's kernel.
    pub fn with_kernel_13(&self) -> Self {
        Self {
            kernel: self.kernel_13.clone(),
            initrd: self.initrd_13.clone(),
            ..self.clone()
        }
    }

    /// Reads the environment variables.
    pub fn from_env() -> anyhow::Result<Self> {
        let path = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set; use `cargo xtask test --only e2e`"))
        };
        let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
        Ok(Self {
            openvmm: path("VMM_TESTS_OPENVMM")?,
            igvmfilegen: path("VMM_TESTS_IGVMFILEGEN")?,
            kernel: path("VMM_TESTS_KERNEL")?,
            initrd: path("VMM_TESTS_INITRD")?,
            kernel_13: path("VMM_TESTS_KERNEL_13")?,
            initrd_13: path("VMM_TESTS_INITRD_13")?,
            ovmf_4m: OvmfBuild {
                code: path("VMM_TESTS_OVMF_CODE_4M")?,
                vars: path("VMM_TESTS_OVMF_VARS_4M")?,
            },
            ovmf_2m: OvmfBuild {
                code: path("VMM_TESTS_OVMF_CODE_2M")?,
                vars: path("VMM_TESTS_OVMF_VARS_2M")?,
            },
            ovmf_13: OvmfBuild {
                code: path("VMM_TESTS_OVMF_CODE_13")?,
                vars: path("VMM_TESTS_OVMF_VARS_13")?,
            },
            test_firmware: path("VMM_TESTS_TEST_FIRMWARE")?,
            boot_disk: path("VMM_TESTS_BOOT_DISK")?,
            installed_disk: path("VMM_TESTS_INSTALLED_DISK").ok(),
            emulated: is_set("VMM_TESTS_EMULATED"),
            from_input: is_set("VMM_TESTS_FROM_INPUT"),
        })
    }
}

/// A build of UEFI firmware.
#[derive(Debug, Clone)]
pub struct OvmfBuild {
    /// The code.
    pub code: PathBuf,
    /// The template of its variables.
    pub vars: PathBuf,
}
