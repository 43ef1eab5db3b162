//! UEFI firmware of the OVMF family: flash memory below 4 GiB, and the firmware configuration device.

use super::super::targets::PartitionRom;
use acpi_spec::TableSet;
use chipset_device::ChipsetDevice;
use flash::FileStorage;
use flash::FileStorageError;
use flash::Flash;
use flash::FlashConfig;
use flash::FlashControl;
use flash::FlashError;
use flash::MemoryStorage;
use fw_cfg::Content;
use fw_cfg::FwCfgBuilder;
use fw_cfg::MemoryKind;
use guest_memory::GuestMemory;
use guest_memory::MemoryError;
use guest_memory::MemoryLayout;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::UefiVariables;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use virt::Partition;
use virt::Topology;
use vmotherboard::ChipsetBuilder;

/// Flash memory ends here.
const FLASH_END: u64 = 1 << 32;

/// Why UEFI firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UefiError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The variables cannot be used.
    #[error(transparent)]
    Variables(#[from] FileStorageError),
    /// A flash chip cannot be made.
    #[error(transparent)]
    Flash(#[from] FlashError),
    /// There is no memory for a flash chip.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What the firmware is told cannot be put together.
    #[error("the firmware configuration device cannot be made")]
    FwCfg(#[from] fw_cfg::BuildError),
    /// The ACPI tables cannot be handed to the firmware.
    #[error("the ACPI tables cannot be handed to the firmware")]
    Acpi(#[from] acpi_spec::BuildError),
}

/// The devices that belong to what runs first.
pub(crate) enum FirmwareDevices {
    /// There are none.
    None,
    /// Flash memory and the firmware configuration device.
    PcUefi(Box<PcUefiDevices>),
}

/// What the devices of UEFI firmware are made from.
pub(crate) struct PcUefiDevices {
    code: Vec<u8>,
    variables: Option<(Vec<u8>, Variables)>,
    fw_cfg: FwCfgBuilder,
}

enum Variables {
    File(FileStorage),
    Memory,
}

fn read(path: &Path) -> Result<Vec<u8>, UefiError> {
    std::fs::read(path).map_err(|source| UefiError::Read {
        path: path.into(),
        source,
    })
}

fn content(path: &Path) -> Result<Content, UefiError> {
    let content = File::open(path).and_then(Content::file);
    content.map_err(|source| UefiError::Read {
        path: path.into(),
        source,
    })
}

/// Reads the files, and puts together what the firmware is told.
pub(super) fn prepare(
    config: &PcUefi,
    topology: &Topology,
    tables: &TableSet,
    layout: &MemoryLayout,
) -> Result<PcUefiDevices, UefiError> {
    let code = read(&config.code)?;
    let variables = match &config.variables {
        UefiVariables::File(path) => {
            let (storage, content) = FileStorage::open(path)?;
            Some((content, Variables::File(storage)))
        }
        UefiVariables::Memory(Some(path)) => Some((read(path)?, Variables::Memory)),
        UefiVariables::Memory(None) => None,
    };
    let mut fw_cfg = FwCfgBuilder::new().boot_cpu_count(topology.vps().len() as u16)?;
    for ram in layout.ram() {
        fw_cfg = fw_cfg.memory_range(ram.start, ram.len(), MemoryKind::Ram);
    }
    for file in tables.loader_files()? {
        fw_cfg = fw_cfg.add_file(file.name, file.bytes)?;
    }
    if let Some(kernel) = &config.kernel {
        fw_cfg = fw_cfg.kernel(&content(&kernel.kernel)?, &kernel.cmdline)?;
        if let Some(initrd) = &kernel.initrd {
            fw_cfg = fw_cfg.initrd(content(initrd)?)?;
        }
    }
    Ok(PcUefiDevices {
        code,
        variables,
        fw_cfg,
    })
}

impl FirmwareDevices {
    /// Adds them to the chipset.
    pub(crate) fn add(
        self,
        builder: &mut ChipsetBuilder,
        partition: &Arc<dyn Partition>,
        memory: &GuestMemory,
    ) -> Result<Option<FlashControl>, UefiError> {
        match self {
            Self::None => Ok(None),
            Self::PcUefi(devices) => devices.add(builder, partition, memory),
        }
    }
}

impl PcUefiDevices {
    fn add(
        self,
        builder: &mut ChipsetBuilder,
        partition: &Arc<dyn Partition>,
        memory: &GuestMemory,
    ) -> Result<Option<FlashControl>, UefiError> {
        let chip = |name: &str, gpa: u64, size: usize| -> Result<FlashConfig, UefiError> {
            let region = guest_memory::device_region(gpa, size as u64)?;
            Ok(FlashConfig {
                name: name.to_owned(),
                region: region.clone(),
                mapping: Arc::new(PartitionRom::new(partition.clone(), region)),
            })
        };
        let code_gpa = FLASH_END - self.code.len() as u64;
        let code = Flash::rom(chip("code", code_gpa, self.code.len())?, &self.code)?;
        builder.add("flash-code", |_| code);
        let mut control = None;
        if let Some((content, storage)) = self.variables {
            let size = content.len();
            let config = chip("variables", code_gpa - size as u64, size)?;
            let flash = match storage {
                Variables::File(storage) => Flash::variables(config, content, storage)?,
                Variables::Memory => Flash::variables(config, content, MemoryStorage)?,
            };
            control = flash.control();
            builder.add("flash-variables", |_| flash);
        }
        let fw_cfg = self.fw_cfg.build(memory.clone())?;
        builder.add("fw-cfg", |_| fw_cfg);
        Ok(control)
    }
}
