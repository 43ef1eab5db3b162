//! What the user writes: a manifest says what the file is made of, resources say where that is.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The architecture of the guest.
    pub guest_arch: Architecture,
    /// The guest on each of its platforms.
    pub guest_configs: Vec<GuestConfig>,
}

/// The architecture of a guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    X64,
    /// 64-bit ARM.
    AArch64,
}

/// A guest on a platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// The security version, for platforms that measure it.
    #[serde(default)]
    pub guest_svn: u32,
    /// The highest virtual trust level: 0, or 2 for a paravisor.
    pub max_vtl: u8,
    /// The platform.
    pub isolation_type: IsolationType,
    /// What the guest runs.
    pub image: Image,
}

/// The isolation of a guest, and so its platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum IsolationType {
    /// None, in the form that Hyper-V loads: the platform VSM_ISOLATION.
    None,
    /// None, in the form for all other hosts: the platform NATIVE.
    Native,
    /// Hyper-V's VBS.
    Vbs {
        /// Whether the host may debug the guest.
        enable_debug: bool,
    },
    /// AMD SEV-SNP.
    Snp {
        /// The bit of addresses that makes memory shared.
        shared_gpa_boundary_bits: Option<u8>,
        /// The guest policy.
        policy: u64,
        /// Whether the host may debug the guest.
        enable_debug: bool,
        /// How interrupts are injected.
        injection_type: String,
        /// Whether the guest has a secure APIC.
        #[serde(default)]
        secure_avic: Option<String>,
    },
    /// Intel TDX.
    Tdx {
        /// Whether the host may debug the guest.
        enable_debug: bool,
        /// Whether missing pages raise no #VE.
        sept_ve_disable: bool,
    },
}

/// What a guest runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Image {
    /// A Linux kernel, as it is started directly.
    Linux(LinuxImage),
    /// UEFI firmware for PCs, of the OVMF family, as it is in flash memory: variables, then code.
    Ovmf {},
    /// UEFI firmware of Hyper-V's generation-2 VMs.
    Uefi(UefiImage),
}

/// UEFI firmware of Hyper-V's generation-2 VMs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UefiImage {
    /// Where the firmware learns about its machine.
    pub config_type: UefiConfigType,
}

/// Where firmware learns about its machine.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UefiConfigType {
    /// In the configuration that the host loads behind it.
    None,
    /// In parameters of the file.
    Igvm,
}

/// A Linux kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinuxImage {
    /// Whether there is an initial RAM disk.
    pub use_initrd: bool,
    /// The command line. A file without one takes that of whoever starts it.
    #[serde(default)]
    pub command_line: Option<String>,
    /// The RAM that the kernel is told of, in bytes. The guest needs as much, and uses no more.
    pub memory_size: u64,
}

/// Where the parts are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// The files.
    pub resources: BTreeMap<ResourceKind, PathBuf>,
}

/// What a file is for.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// UEFI firmware for generation-2 VMs of Hyper-V.
    Uefi,
    /// OpenHCL's kernel.
    UnderhillKernel,
    /// OpenHCL's boot shim.
    OpenhclBoot,
    /// OpenHCL's initial RAM disk.
    UnderhillInitrd,
    /// OpenHCL's sidecar kernel.
    UnderhillSidecar,
    /// A Linux kernel.
    LinuxKernel,
    /// A Linux kernel's initial RAM disk.
    LinuxInitrd,
    /// The code of UEFI firmware for PCs.
    OvmfCode,
    /// The template of its variables.
    OvmfVars,
}

impl ResourceKind {
    /// Its name in a file of resources.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::UnderhillKernel => "underhill_kernel",
            Self::OpenhclBoot => "openhcl_boot",
            Self::UnderhillInitrd => "underhill_initrd",
            Self::UnderhillSidecar => "underhill_sidecar",
            Self::LinuxKernel => "linux_kernel",
            Self::LinuxInitrd => "linux_initrd",
            Self::OvmfCode => "ovmf_code",
            Self::OvmfVars => "ovmf_vars",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a manifest or resources cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It is not what it should be. The error of the parser has line and column.
    #[error("{} is not valid", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A resource has a relative path.
    #[error("{}: the path of {kind}, {}, must be absolute", path.display(), resource.display())]
    Relative {
        /// The file of resources.
        path: PathBuf,
        /// The resource.
        kind: ResourceKind,
        /// Its path.
        resource: PathBuf,
    },
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        read_json(path)
    }

    /// The resources that it needs.
    pub fn needs(&self) -> Vec<ResourceKind> {
        let mut needs = Vec::new();
        for config in &self.guest_configs {
            match &config.image {
                Image::Linux(linux) => {
                    needs.push(ResourceKind::LinuxKernel);
                    needs.extend(linux.use_initrd.then_some(ResourceKind::LinuxInitrd));
                }
                Image::Ovmf {} => needs.extend([ResourceKind::OvmfCode, ResourceKind::OvmfVars]),
                Image::Uefi(_) => needs.push(ResourceKind::Uefi),
            }
        }
        needs.sort();
        needs.dedup();
        needs
    }
}

impl Resources {
    /// Reads a file of resources.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let resources: Self = read_json(path)?;
        let relative = resources.resources.iter();
        match relative
            .clone()
            .find(|(_, resource)| resource.is_relative())
        {
            None => Ok(resources),
            Some((kind, resource)) => Err(ReadError::Relative {
                path: path.into(),
                kind: *kind,
                resource: resource.clone(),
            }),
        }
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ReadError> {
    let text = std::fs::read(path).map_err(|source| ReadError::Read {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| ReadError::Json {
        path: path.into(),
        source,
    })
}
