//! The devices of UEFI firmware: flash memory below 4 GiB, the firmware configuration device and the generation ID.

use super::preserved::FLASH_END;
use chipset::pm::PmControl;
use chipset_device::MissingService;
use chipset_device::Services;
use flash::FileStorage;
use flash::Flash;
use flash::FlashConfig;
use flash::FlashError;
use flash::MemoryStorage;
use flash::VmgsStorage;
use fw_cfg::FwCfgBuilder;
use generation_id::GenerationId;
use guest_memory::GuestMemory;
use guest_memory::MemoryError;
use machine_parts::PartitionRom;
use std::sync::Arc;
use virt::Partition;
use vmotherboard::ChipsetBuilder;

/// The general-purpose event that is raised when the generation ID changes.
pub(crate) const GENERATION_ID_EVENT: u8 = 0;

/// The devices that a machine's firmware needs.
pub(crate) enum FirmwareDevices {
    /// None.
    None,
    /// Those of UEFI firmware.
    PcUefi(Box<PcUefiDevices>),
}

/// What the devices of UEFI firmware are built from.
pub(crate) struct PcUefiDevices {
    /// The contents of the flash chip that ends at 4 GiB.
    pub code: Arc<[u8]>,
    /// The contents of the flash chip below, and what keeps them.
    pub variables: Option<(Vec<u8>, VariableStorage)>,
    pub fw_cfg: FwCfgBuilder,
    pub generation_id: [u8; 16],
}

/// Where variables are kept.
pub(crate) enum VariableStorage {
    File(FileStorage),
    Memory,
    Vmgs(VmgsStorage),
}

/// Why a device of UEFI firmware cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareDeviceError {
    /// A flash chip cannot be made.
    #[error(transparent)]
    Flash(#[from] FlashError),
    /// There is no memory for a flash chip.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The firmware configuration device cannot be made.
    #[error("the firmware configuration device cannot be made")]
    FwCfg(#[from] fw_cfg::BuildError),
    /// The machine does not offer what a device needs.
    #[error(transparent)]
    Service(#[from] MissingService),
}

impl FirmwareDevices {
    /// Adds them to the chipset.
    pub(crate) fn add(
        self,
        builder: &mut ChipsetBuilder,
        services: &Services,
        partition: &Arc<dyn Partition>,
    ) -> Result<(), FirmwareDeviceError> {
        match self {
            Self::None => Ok(()),
            Self::PcUefi(devices) => devices.add(builder, services, partition),
        }
    }
}

impl PcUefiDevices {
    fn add(
        self,
        builder: &mut ChipsetBuilder,
        services: &Services,
        partition: &Arc<dyn Partition>,
    ) -> Result<(), FirmwareDeviceError> {
        let memory = services.get::<GuestMemory>()?;
        let event = services.get::<PmControl>()?.gpe(GENERATION_ID_EVENT);
        let chip = |name: &str, gpa: u64, size: usize| -> Result<FlashConfig, MemoryError> {
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
        if let Some((content, storage)) = self.variables {
            let size = content.len();
            let config = chip("variables", code_gpa - size as u64, size)?;
            let flash = match storage {
                VariableStorage::File(storage) => Flash::variables(config, content, storage)?,
                VariableStorage::Memory => Flash::variables(config, content, MemoryStorage)?,
                VariableStorage::Vmgs(storage) => Flash::variables(config, content, storage)?,
            };
            builder.add("flash-variables", |_| flash);
        }
        let generation_id = builder.add("generation-id", |_| {
            GenerationId::new(self.generation_id, memory.clone(), event)
        });
        let fw_cfg = self.fw_cfg.add_writable_file(
            acpi_spec::GENERATION_ID_ADDRESS_FILE,
            vec![0; acpi_spec::GENERATION_ID_ADDRESS_LEN],
            move |bytes| {
                let mut address = [0; acpi_spec::GENERATION_ID_ADDRESS_LEN];
                if bytes.len() == address.len() {
                    address.copy_from_slice(bytes);
                    generation_id
                        .lock()
                        .set_address(u64::from_le_bytes(address));
                }
            },
        )?;
        let fw_cfg = fw_cfg.build(memory.clone())?;
        builder.add("fw-cfg", |_| fw_cfg);
        Ok(())
    }
}
