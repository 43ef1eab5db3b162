//! From a manifest to a file.

use crate::context;
use crate::context::ContextError;
use crate::manifest::Architecture;
use crate::manifest::GuestConfig;
use crate::manifest::Image;
use crate::manifest::IsolationType;
use crate::manifest::LinuxImage;
use crate::manifest::Manifest;
use crate::manifest::ResourceKind;
use crate::manifest::Resources;
use crate::manifest::UefiConfigType;
use crate::manifest::UefiImage;
use crate::map;
use crate::packed::CommandLine;
use crate::packed::PackedImage;
use guest_memory::MemoryLayout;
use guest_memory::MemoryLayoutError;
use guest_memory::MemoryRange;
use igvm_format::At;
use igvm_format::Directive;
use igvm_format::IgvmError;
use igvm_format::IgvmFile;
use igvm_format::NativeVpContext;
use igvm_format::Platform;
use igvm_format::PlatformType;
use igvm_format::Revision;
use igvm_format::VpContext;
use igvm_format::VpContextData;
use igvm_format::VsmRegister;
use igvm_format::WriteError;
use loader::ImageFile;
use loader::ImageFileError;
use loader::ImageLoad;
use loader::ImportError;
use loader::PageData;
use loader::PageImport;
use loader::PageKind;
use loader::Piece;
use loader::linux::EntryProtocol;
use loader::linux::LinuxPlan;
use loader::linux::LoadError;
use loader::msvm;
use loader::msvm::MsvmError;
use loader::msvm::MsvmImage;
use std::path::PathBuf;
use std::sync::Arc;

/// The most RAM of a Linux image, in bytes. The machines that load one have devices above.
const MAX_LINUX_RAM: u64 = 0xb000_0000;

/// The flash memory of a PC is smaller than this, in bytes.
const MAX_FLASH: u64 = 16 << 20;

/// The widest physical addresses, in bits.
const ADDRESS_BITS: u8 = 52;

/// A file that was made.
#[derive(Debug)]
pub struct Generated {
    /// The file.
    pub file: Vec<u8>,
    /// What is where in guest memory, in words.
    pub map: String,
}

/// Why no file can be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The manifest asks for something that there is not.
    #[error("guest config {index}: {problem}")]
    Config {
        /// The place of the guest config in the manifest, from 0.
        index: usize,
        /// What is wrong.
        problem: ConfigProblem,
    },
    /// There are no guest configs.
    #[error("the manifest has no guest configs")]
    NoConfigs,
    /// The architecture is not supported.
    #[error("guest_arch aarch64 is not supported")]
    Architecture,
    /// Two guest configs have the same platform.
    #[error("guest config {index} is for the platform {platform}, as an earlier one is")]
    SamePlatform {
        /// The place of the second one.
        index: usize,
        /// The platform.
        platform: PlatformType,
    },
    /// Resources are missing.
    #[error("the manifest needs resources that are not given: {}", names(.0))]
    MissingResources(Vec<ResourceKind>),
    /// The file would be malformed, or too large.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Parts of the image overlap.
    #[error("parts of the image overlap")]
    Overlap(#[from] IgvmError),
}

/// Why the image of a guest config cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// The isolation is not supported.
    #[error("isolation_type {0} is not supported yet")]
    Isolation(&'static str),
    /// The highest VTL does not fit the image.
    #[error("max_vtl is {0}, but this image runs in VTL 0")]
    MaxVtl(u8),
    /// The RAM is too large.
    #[error(
        "memory_size is {size} bytes; a Linux image can have {MAX_LINUX_RAM} at most (2816 MiB)"
    )]
    MemorySize {
        /// The size.
        size: u64,
    },
    /// The RAM cannot have this size.
    #[error("memory_size: {0}")]
    Layout(#[from] MemoryLayoutError),
    /// Firmware is larger than the flash memory of a PC.
    #[error("{} has {len} bytes; flash memory has {MAX_FLASH} at most", path.display())]
    FirmwareSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The firmware would have to find its configuration in the file.
    #[error("config_type igvm is not supported yet; none is")]
    ConfigType,
    /// The firmware has another size than the one that hosts know.
    #[error("{} has {len} bytes; firmware of generation-2 VMs has {} in an IGVM file", path.display(), msvm::IMAGE_LEN)]
    UefiSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The firmware cannot be loaded.
    #[error("{} cannot be used as firmware of a generation-2 VM: {source}", path.display())]
    Uefi {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MsvmError,
    },
    /// A resource cannot be read.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Linux(#[from] LoadError),
    /// The image cannot be packed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The registers cannot be packed.
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// A guest config, packed.
pub(crate) struct PackedConfig {
    pub platform: PlatformType,
    pub image: PackedImage,
    context: Context,
}

/// The registers of the boot processor.
enum Context {
    None,
    Native(Box<NativeVpContext>),
    Vsm(Vec<VsmRegister>),
}

/// Makes the file of `manifest`. The same input gives the same bytes.
pub fn generate(manifest: &Manifest, resources: &Resources) -> Result<Generated, GenerateError> {
    if manifest.guest_arch != Architecture::X64 {
        return Err(GenerateError::Architecture);
    }
    if manifest.guest_configs.is_empty() {
        return Err(GenerateError::NoConfigs);
    }
    let mut missing = manifest.needs();
    missing.retain(|kind| !resources.resources.contains_key(kind));
    if !missing.is_empty() {
        return Err(GenerateError::MissingResources(missing));
    }
    let mut configs: Vec<PackedConfig> = Vec::new();
    for (index, config) in manifest.guest_configs.iter().enumerate() {
        let packed =
            pack(config, resources).map_err(|problem| GenerateError::Config { index, problem })?;
        let platform = packed.platform;
        if configs.iter().any(|other| other.platform == platform) {
            return Err(GenerateError::SamePlatform { index, platform });
        }
        configs.push(packed);
    }
    let file = file(&configs);
    for At { record, .. } in &file.platforms {
        file.check_overlaps(record.mask)?;
    }
    Ok(Generated {
        file: file.write()?,
        map: map::map(&configs),
    })
}

fn pack(config: &GuestConfig, resources: &Resources) -> Result<PackedConfig, ConfigProblem> {
    let platform = match &config.isolation_type {
        IsolationType::None => PlatformType::VsmIsolation,
        IsolationType::Native => PlatformType::Native,
        IsolationType::Vbs { .. } => return Err(ConfigProblem::Isolation("vbs")),
        IsolationType::Snp { .. } => return Err(ConfigProblem::Isolation("snp")),
        IsolationType::Tdx { .. } => return Err(ConfigProblem::Isolation("tdx")),
    };
    if config.max_vtl != 0 {
        return Err(ConfigProblem::MaxVtl(config.max_vtl));
    }
    let image = match &config.image {
        Image::Linux(linux) => pack_linux(linux, resources)?,
        Image::Ovmf {} => pack_ovmf(resources)?,
        Image::Uefi(uefi) => pack_uefi(uefi, resources)?,
    };
    if let Some((&vp, _)) = image.registers().iter().find(|(vp, _)| **vp != 0) {
        return Err(ContextError::Vp { vp }.into());
    }
    let context = match (image.registers().get(&0), platform) {
        (None, _) => Context::None,
        (Some(registers), PlatformType::Native) => {
            Context::Native(Box::new(context::native(registers)?))
        }
        (Some(registers), _) => Context::Vsm(context::vsm(registers)?),
    };
    Ok(PackedConfig {
        platform,
        image,
        context,
    })
}

fn pack_linux(linux: &LinuxImage, resources: &Resources) -> Result<PackedImage, ConfigProblem> {
    let size = linux.memory_size;
    if size > MAX_LINUX_RAM {
        return Err(ConfigProblem::MemorySize { size });
    }
    let layout = MemoryLayout::new(size, MAX_LINUX_RAM, ADDRESS_BITS)?;
    let open = |kind| {
        resources
            .resources
            .get(&kind)
            .map(|path| ImageFile::open(path))
    };
    let Some(kernel) = open(ResourceKind::LinuxKernel).transpose()? else {
        // The caller has checked that it is given.
        return Ok(PackedImage::new(CommandLine::InFile));
    };
    let initrd = match linux.use_initrd {
        true => open(ResourceKind::LinuxInitrd).transpose()?,
        false => None,
    };
    let plan = LinuxPlan::new(
        &layout,
        loader::linux::LinuxImage {
            kernel,
            initrd,
            cmdline: linux.command_line.as_deref().unwrap_or_default(),
            host: None,
            protocol: EntryProtocol::Auto,
        },
    )?;
    let mut image = PackedImage::new(match linux.command_line {
        Some(_) => CommandLine::InFile,
        None => CommandLine::FromHost,
    });
    let ram = MemoryRange {
        start: 0,
        end: size,
    };
    image.require_memory("the kernel's RAM", ram)?;
    plan.load(&mut image)?;
    Ok(image)
}

/// The firmware with what it starts with, without its configuration: the host loads that.
fn pack_uefi(uefi: &UefiImage, resources: &Resources) -> Result<PackedImage, ConfigProblem> {
    if uefi.config_type != UefiConfigType::None {
        return Err(ConfigProblem::ConfigType);
    }
    let mut image = PackedImage::new(CommandLine::InFile);
    let path = resources.resources.get(&ResourceKind::Uefi);
    let Some(file) = path.map(|path| ImageFile::open(path)).transpose()? else {
        // The caller has checked that it is given.
        return Ok(image);
    };
    let (path, len) = (file.path().to_owned(), file.len());
    if len != msvm::IMAGE_LEN {
        return Err(ConfigProblem::UefiSize { path, len });
    }
    let firmware = MsvmImage::new(file.read()?.into())
        .map_err(|source| ConfigProblem::Uefi { path, source })?;
    firmware.load(&mut image, None)?;
    Ok(image)
}

/// Variables and code, as they are in flash memory: code that ends at 4 GiB, and variables before it. The processor starts
/// at the reset vector.
fn pack_ovmf(resources: &Resources) -> Result<PackedImage, ConfigProblem> {
    let read = |kind| -> Result<Arc<[u8]>, ConfigProblem> {
        let path = resources.resources.get(&kind);
        let Some(file) = path.map(|path| ImageFile::open(path)).transpose()? else {
            // The caller has checked that it is given.
            return Ok(Arc::new([]));
        };
        let len = file.len();
        if len > MAX_FLASH {
            let path = file.path().into();
            return Err(ConfigProblem::FirmwareSize { path, len });
        }
        Ok(file.read()?.into())
    };
    let mut image = PackedImage::new(CommandLine::InFile);
    let code = loader::ovmf::load(&mut image, &read(ResourceKind::OvmfCode)?)?;
    let variables = read(ResourceKind::OvmfVars)?;
    image.import_pages(&PageImport {
        what: "the OVMF variables",
        range: MemoryRange {
            start: code.start - variables.len() as u64,
            end: code.start,
        },
        kind: PageKind::Rom,
        content: vec![Piece {
            offset: 0,
            data: PageData::Bytes(variables),
        }],
    })?;
    Ok(image)
}

/// The file of these configs: the first has mask 1, the next 2, and so on.
fn file(configs: &[PackedConfig]) -> IgvmFile<'_> {
    let mut platforms = Vec::new();
    let mut directives = Vec::new();
    let mut first_area = 0;
    for (bit, config) in configs.iter().enumerate() {
        let mask = 1 << bit;
        let platform = Platform {
            mask,
            highest_vtl: 0,
            platform_type: config.platform,
            shared_gpa_boundary: 0,
        };
        platforms.push(platform.into());
        let context = config.context(mask);
        directives.extend(config.image.directives(mask, first_area, context));
        first_area += config.image.area_count();
    }
    let native = configs
        .iter()
        .any(|config| config.platform == PlatformType::Native);
    IgvmFile {
        // Version 2 brought the native context. Some loaders know version 1 only.
        revision: match native {
            true => Revision::V2(igvm_format::Architecture::X64),
            false => Revision::V1,
        },
        platforms,
        initializations: Vec::new(),
        directives,
        skipped: Vec::new(),
    }
}

impl PackedConfig {
    fn context(&self, mask: u32) -> Option<Directive<'_>> {
        let data = match &self.context {
            Context::None => return None,
            Context::Native(native) => VpContextData::Native(native),
            Context::Vsm(list) => VpContextData::Vsm(list),
        };
        Some(Directive::VpContext(VpContext {
            gpa: 0,
            mask,
            vp_index: 0,
            data,
        }))
    }
}

fn names(kinds: &[ResourceKind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}
