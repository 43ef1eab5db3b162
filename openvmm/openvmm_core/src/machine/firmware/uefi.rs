//! UEFI firmware of the OVMF family: which image runs, and the files that describe the machine to it.

use super::SESSION_UNIT;
use super::hyperv::CONFIG_FILE;
use super::igvm::PackedFirmware;
use super::session::FilesOrigin;
use super::session::FirmwarePlace;
use super::session::FirmwareSession;
use super::session::HibernationSink;
use super::session::LoadedFirmware;
use super::session::SessionConfig;
use super::uefi_devices::LateTables;
use super::uefi_devices::UefiDevices;
use super::variables::Variables;
use super::variables::VariablesError;
use crate::machine::acpi::MachineTables;
use crate::machine::devices::DevicePlan;
use crate::machine::inventory;
use crate::machine::plan::MachineShape;
use crate::machine::platform::PciWindows;
use crate::machine::view;
use crate::machine::vmgs_store::PlannedStore;
use acpi_spec::TableSet;
use firmware_hibernation::HibernationEvent;
use firmware_hibernation::RESET_VECTOR;
use firmware_hibernation::Refusal;
use fw_cfg::FwCfgBuilder;
use fw_cfg::ItemContent;
use fw_cfg::e820_ram_entry;
use guest_memory::MemoryLayout;
use loader::ImageFileError;
use loader::ImportError;
use loader::igvm::IgvmLoadError;
use loader::msvm::MsvmError;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::start::Start;
use ovmf_image::FirmwareFile;
use ovmf_image::FirmwareFileError;
use ovmf_image::FirmwareKind;
use ovmf_image::ImageError;
use ovmf_image::SmmError;
use platform_digest::BlobDigest;
use platform_digest::BootFile;
use platform_digest::PlatformView;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use uefi_config::BlobError;
use uefi_config::ConfigError;
use virt::Topology;

/// Why UEFI firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UefiError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// The file is not firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareFileError),
    /// The file is firmware for another kind of machine.
    #[error(
        "{} is firmware for generation-2 VMs of Hyper-V; this machine profile needs OVMF",
        path.display()
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// An IGVM file has no firmware where it runs.
    #[error(
        "{} has no firmware for PCs: its pages below 4 GiB are not one piece that ends there",
        path.display()
    )]
    NoFirmwareInIgvm {
        /// The file.
        path: PathBuf,
    },
    /// An IGVM file cannot be read.
    #[error(transparent)]
    IgvmFile(#[from] ImageFileError),
    /// An IGVM file cannot be loaded.
    #[error(transparent)]
    Igvm(#[from] IgvmLoadError),
    /// What is in an IGVM file cannot be taken from it.
    #[error("cannot read the firmware in the IGVM file")]
    IgvmImport(#[source] ImportError),
    /// An IGVM file has more than its firmware's image and what such an image starts with.
    #[error(
        "the firmware in {} cannot be preserved for a guest that hibernates: the file starts it in another way than an image of it; \
         turn hibernation off, or name the image with --uefi-firmware",
        path.display()
    )]
    IgvmFirmware {
        /// The file.
        path: PathBuf,
    },
    /// The firmware does not run without SMM.
    #[error("cannot use the firmware {}", path.display())]
    Smm {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SmmError,
    },
    /// What is stored for a hibernated guest is not OVMF.
    #[error("the firmware stored for the hibernated guest is not OVMF")]
    Stored(#[source] ImageError),
    /// What is stored for a hibernated guest is firmware for another kind of machine.
    #[error("the firmware stored for the hibernated guest is for generation-2 VMs of Hyper-V")]
    StoredOtherMachine,
    /// The firmware of a generation-2 VM cannot be loaded.
    #[error("{} cannot be used as firmware of a generation-2 VM", path.display())]
    Msvm {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MsvmError,
    },
    /// What is stored for a hibernated guest is not firmware of a generation-2 VM.
    #[error("the firmware stored for the hibernated guest cannot be loaded")]
    StoredMsvm(#[source] MsvmError),
    /// The firmware's configuration cannot be made.
    #[error("cannot make the firmware's configuration")]
    Config(#[from] ConfigError),
    /// What is stored for a hibernated guest lacks what the firmware was told.
    #[error("the firmware's configuration `{CONFIG_FILE}` is not stored for the hibernated guest")]
    NoStoredConfig,
    /// The stored configuration cannot be used.
    #[error("the firmware's configuration that is stored for the hibernated guest cannot be used")]
    StoredConfig(#[from] BlobError),
    /// The host has no random bytes.
    #[error("cannot get random bytes for the firmware from the host")]
    Entropy(#[source] getrandom::Error),
    /// The variables cannot be used.
    #[error(transparent)]
    Variables(#[from] VariablesError),
    /// The firmware of a hibernated guest cannot be restored.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The saved machine has no firmware.
    #[error("the saved machine has no unit `{SESSION_UNIT}`: it ran without UEFI firmware")]
    NoSavedSession,
    /// The saved firmware session cannot be restored.
    #[error("the saved firmware session cannot be restored")]
    SavedSession(#[from] mesh::saved_state::RestoreError),
    /// The firmware configuration device cannot be built.
    #[error("cannot build the firmware configuration device")]
    FwCfg(#[from] fw_cfg::FwCfgError),
    /// The ACPI tables cannot be made into files for the firmware.
    #[error("cannot make the firmware's files of the ACPI tables")]
    Acpi(#[from] acpi_spec::AcpiError),
    /// The SMBIOS structures cannot be built.
    #[error("cannot build the SMBIOS structures")]
    Smbios(#[from] smbios::SmbiosError),
}

/// Where the host's firmware is.
pub(crate) enum FirmwareSource<'a> {
    /// In a file, which is read if the firmware is to run.
    File(PathBuf),
    /// Alone in an IGVM file, which is read if the firmware is to run.
    Packed(PackedFirmware<'a>),
    /// In another file that was read.
    Read {
        /// The file.
        path: PathBuf,
        /// The firmware in it.
        firmware: FirmwareFile,
    },
}

/// The firmware that a machine is to run, unless a hibernated guest has its own.
pub(crate) struct PcFirmware<'a> {
    pub uefi: &'a PcUefi,
    pub source: FirmwareSource<'a>,
}

impl FirmwareSource<'_> {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Read { path, .. } => path,
            Self::Packed(packed) => packed.path(),
        }
    }

    /// The firmware.
    pub(super) fn open(&self) -> Result<FirmwareFile, UefiError> {
        match self {
            Self::File(path) => Ok(FirmwareFile::open(path)?),
            Self::Packed(packed) => packed.open(),
            Self::Read { firmware, .. } => Ok(firmware.clone()),
        }
    }
}

/// UEFI firmware, and the devices that belong to it.
pub(crate) struct UefiPlan {
    pub session: FirmwareSession,
    pub devices: UefiDevices,
}

impl UefiPlan {
    /// Decides which firmware runs and checks everything that can be checked before the machine is built.
    pub(crate) fn new(
        firmware: &PcFirmware<'_>,
        machine: &MachineShape<'_>,
        devices: &DevicePlan,
        tables: MachineTables,
        store: Option<&PlannedStore>,
        start: &Start,
        events: HibernationSink,
    ) -> Result<Self, UefiError> {
        let PcFirmware { uefi, source } = firmware;
        let smbios = inventory::smbios(machine.config.uuid, machine.topology, machine.layout);
        let files = firmware_files(machine.layout, &tables.at_reset()?, &smbios)?;
        let script = files.get(acpi_spec::SCRIPT_FILE).cloned();
        let windows = PciWindows::at_reset(machine.layout, machine.address_bits);
        let mut view = PlatformView {
            mmio: view::pci_ranges(&windows),
            acpi: view::digest(&files, "etc/acpi/"),
            smbios: view::digest(&files, "etc/smbios/"),
            ..view::platform_view(devices, machine)
        };
        if machine.config.hibernation.enabled {
            view.boot_files = Some(boot_files(uefi)?);
        }
        let report = events.clone();
        let place = FirmwarePlace::Rom;
        let config = SessionConfig::new(place, machine, view, store, start, events);
        let session = match start {
            Start::Boot(_) => FirmwareSession::plan(config, || {
                Ok::<_, UefiError>(LoadedFirmware {
                    code: host_code(source)?.into(),
                    entry_gpa: RESET_VECTOR,
                    files,
                    origin: FilesOrigin::Machine,
                })
            })?,
            Start::Restore(saved) => {
                let state = saved
                    .units
                    .get(SESSION_UNIT)
                    .ok_or(UefiError::NoSavedSession)?;
                FirmwareSession::resume(config, state)?
            }
        };
        let loaded = session.loaded();
        let ovmf = match FirmwareKind::recognize(&loaded.code) {
            Ok(FirmwareKind::Ovmf(ovmf)) => ovmf,
            // The host's firmware was checked when it was read.
            Ok(FirmwareKind::Msvm { .. }) => return Err(UefiError::StoredOtherMachine),
            Err(error) => return Err(UefiError::Stored(error)),
        };
        let variables = Variables::plan(firmware, &ovmf, store)?;
        let mut files = loaded.files.clone();
        // Tables of a saved machine that have another form stay as they are.
        let own = loaded.origin == FilesOrigin::Machine
            && loaded.files.get(acpi_spec::SCRIPT_FILE) == script.as_ref();
        let tables = own
            .then(|| files.remove(acpi_spec::TABLES_FILE))
            .flatten()
            .map(|initial| LateTables { tables, initial });
        let smbios = (own && matches!(start, Start::Boot(_))).then(|| {
            files.remove(smbios::TABLES_FILE);
            smbios
        });
        if machine.config.hibernation.enabled
            && variables.is_some()
            && matches!(uefi.variables, UefiVariables::Memory(_))
        {
            let event = HibernationEvent::VariablesInMemory;
            tracing::warn!("{event}");
            report(event);
        }
        let devices = UefiDevices {
            code: loaded.code.clone(),
            variables,
            fw_cfg: fw_cfg(uefi, machine.topology, files)?,
            tables,
            smbios,
            generation_id: inventory::generation_id(machine.config.uuid),
        };
        Ok(Self { session, devices })
    }
}

/// The code in the host's firmware file.
fn host_code(firmware: &FirmwareSource<'_>) -> Result<Vec<u8>, UefiError> {
    let (file, path) = (firmware.open()?, firmware.path());
    let FirmwareKind::Ovmf(ovmf) = file.kind() else {
        return Err(UefiError::OtherMachine { path: path.into() });
    };
    let code = file.region(&ovmf.code);
    ovmf_image::runs_without_smm(code).map_err(|source| UefiError::Smm {
        path: path.into(),
        source,
    })?;
    Ok(code.to_vec())
}

/// The files that describe the machine to the firmware, by name.
fn firmware_files(
    layout: &MemoryLayout,
    tables: &TableSet,
    smbios: &smbios::Description,
) -> Result<BTreeMap<String, Vec<u8>>, UefiError> {
    let mut files = BTreeMap::new();
    for file in tables.loader_files()? {
        files.insert(file.name.to_owned(), file.bytes);
    }
    let smbios = smbios.build()?;
    files.insert(smbios::ANCHOR_FILE.to_owned(), smbios.anchor);
    files.insert(smbios::TABLES_FILE.to_owned(), smbios.tables);
    files.insert("etc/e820".to_owned(), e820(layout));
    Ok(files)
}

/// The RAM ranges. They are a file, so that they are stored for a hibernated guest with the others.
fn e820(layout: &MemoryLayout) -> Vec<u8> {
    let ram = layout.ram().iter();
    ram.flat_map(|ram| e820_ram_entry(ram.start, ram.len()))
        .collect()
}

fn fw_cfg(
    uefi: &PcUefi,
    topology: &Topology,
    files: BTreeMap<String, Vec<u8>>,
) -> Result<FwCfgBuilder, UefiError> {
    let mut fw_cfg = FwCfgBuilder::default().boot_cpu_count(topology.vps().len() as u16)?;
    for (name, bytes) in files {
        fw_cfg = fw_cfg.add_file(&name, bytes)?;
    }
    if let Some(kernel) = &uefi.kernel {
        fw_cfg = fw_cfg.kernel(&content(&kernel.kernel)?, &kernel.cmdline)?;
        if let Some(initrd) = &kernel.initrd {
            fw_cfg = fw_cfg.initrd(content(initrd)?)?;
        }
    }
    Ok(fw_cfg)
}

/// What the firmware is given to boot, as far as a hibernated guest relies on it. An initial RAM disk may change: all
/// that it does is to find the image.
fn boot_files(uefi: &PcUefi) -> Result<Vec<BootFile>, UefiError> {
    let Some(kernel) = &uefi.kernel else {
        return Ok(Vec::new());
    };
    let path = &kernel.kernel;
    // Refuses what is not a file of a known length.
    content(path)?;
    let image = std::fs::read(path).map_err(|source| UefiError::Read {
        path: path.clone(),
        source,
    })?;
    let files = [
        ("kernel", &*image),
        ("command line", kernel.cmdline.as_bytes()),
    ];
    let files = files.map(|(name, bytes)| BootFile {
        name: name.to_owned(),
        content: BlobDigest::of([(name, bytes)]),
    });
    Ok(files.into())
}

fn content(path: &Path) -> Result<ItemContent, UefiError> {
    let content = File::open(path).and_then(ItemContent::file);
    content.map_err(|source| UefiError::Read {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_has_an_entry_for_each_range() {
        let layout = MemoryLayout::new(4 << 30, 0xb000_0000, 40).unwrap();
        let map = e820(&layout);
        assert_eq!(map.len(), 40);
        assert_eq!(map[8..16], 0xb000_0000_u64.to_le_bytes());
        assert_eq!(map[20..28], (1_u64 << 32).to_le_bytes());
    }
}
