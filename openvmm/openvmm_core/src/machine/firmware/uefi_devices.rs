//! The devices of UEFI firmware: flash memory below 4 GiB, the firmware configuration device and the generation ID.

use super::session::SharedSession;
use super::variables::VariableStorage;
use super::variables::Variables;
use crate::machine::acpi::MachineTables;
use crate::machine::generation::GenerationDevice;
use crate::machine::inventory;
use chipset::pm::PmControl;
use chipset_device::MissingService;
use chipset_device::PciConfigSpace;
use chipset_device::Services;
use chipset_device::shared;
use flash::Flash;
use flash::FlashConfig;
use flash::FlashError;
use flash::MemoryStorage;
use flash::VmgsStorage;
use flash::VmgsStorageError;
use fw_cfg::FwCfgBuilder;
use generation_id::GenerationId;
use guest_memory::GuestMemory;
use guest_memory::MemoryError;
use loader::GuestImage;
use loader::ImportError;
use loader::ovmf;
use machine_parts::PartitionRom;
use q35::EcamWindow;
use std::sync::Arc;
use virt::Partition;
use vmgs_broker::VmgsClient;
use vmotherboard::ChipsetBuilder;

/// The general-purpose event that is raised when the generation ID changes.
pub(crate) const GENERATION_ID_EVENT: u8 = 0;

/// What the devices of UEFI firmware are built from.
pub(crate) struct UefiDevices {
    pub code: Arc<[u8]>,
    /// `None` if the firmware keeps no variables.
    pub variables: Option<Variables>,
    pub fw_cfg: FwCfgBuilder,
    /// ACPI tables that follow what the firmware programs; `None` if they are among the device's files.
    pub tables: Option<LateTables>,
    /// SMBIOS structures that lack what the partition's processor says of itself; `None` if they are among the files.
    pub smbios: Option<smbios::Description>,
    pub generation_id: [u8; 16],
}

/// ACPI tables that are made when the firmware asks for them.
pub(crate) struct LateTables {
    pub tables: MachineTables,
    /// What [`acpi_spec::TABLES_FILE`] has until then.
    pub initial: Vec<u8>,
}

/// Why a device of UEFI firmware cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareDeviceError {
    /// A flash chip cannot be made.
    #[error(transparent)]
    Flash(#[from] FlashError),
    /// The code cannot be loaded into flash memory.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The variables in the VMGS file cannot be used.
    #[error(transparent)]
    Variables(#[from] VmgsStorageError),
    /// There is no memory for a flash chip.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The firmware configuration device cannot be made.
    #[error("the firmware configuration device cannot be made")]
    FwCfg(#[from] fw_cfg::FwCfgError),
    /// The hypervisor does not say what processor it has.
    #[error(transparent)]
    Processor(#[from] virt::Error),
    /// The SMBIOS structures cannot be built.
    #[error("cannot build the SMBIOS structures")]
    Smbios(#[from] smbios::SmbiosError),
    /// The machine does not offer what a device needs.
    #[error(transparent)]
    Service(#[from] MissingService),
}

impl UefiDevices {
    /// Adds the devices to the chipset. They offer what changes the generation ID, and what controls the storage of the
    /// variables if there are any.
    pub(crate) fn add(
        self,
        builder: &mut ChipsetBuilder,
        services: &mut Services,
        partition: &Arc<dyn Partition>,
    ) -> Result<(), FirmwareDeviceError> {
        let memory = services.get::<GuestMemory>()?.clone();
        let event = services.get::<PmControl>()?.gpe(GENERATION_ID_EVENT);
        let chip = |name: &str, gpa: u64, size: usize| -> Result<FlashConfig, MemoryError> {
            let region = guest_memory::device_region(gpa, size as u64)?;
            Ok(FlashConfig {
                name: name.to_owned(),
                region: region.clone(),
                mapping: Arc::new(PartitionRom::new(partition.clone(), region)),
            })
        };
        let mut image = GuestImage::new(memory.map());
        let code = ovmf::load(&mut image, &self.code)?;
        for rom in image.roms() {
            let content = rom.read()?;
            let flash = Flash::rom(chip("code", rom.range.start, content.len())?, &content)?;
            builder.add("flash-code", |_| flash);
        }
        if let Some(Variables { content, storage }) = self.variables {
            let size = content.len();
            let config = chip("variables", code.start - size as u64, size)?;
            let flash = match storage {
                VariableStorage::File(storage) => Flash::variables(config, content, storage)?,
                VariableStorage::Memory => Flash::variables(config, content, MemoryStorage)?,
                VariableStorage::Vmgs => {
                    let client = services.get::<VmgsClient>()?.clone();
                    let (storage, _) = pal_async::block_on(VmgsStorage::open(client))?;
                    Flash::variables(config, content, storage)?
                }
            };
            if let Some(control) = flash.control() {
                services.offer(control);
            }
            builder.add("flash-variables", |_| flash);
        }
        let generation_id = builder.add("generation-id", |_| {
            GenerationId::new(self.generation_id, memory.clone(), event)
        });
        services.offer(GenerationDevice(generation_id.clone()));
        let session = services.get::<SharedSession>()?;
        let mut fw_cfg = self.fw_cfg;
        if let Some(smbios) = self.smbios {
            let tables = inventory::with_processor(smbios, partition.processor()?)
                .build()?
                .tables;
            session.set_file(smbios::TABLES_FILE, tables.clone());
            fw_cfg = fw_cfg.add_file(smbios::TABLES_FILE, tables)?;
        }
        let fw_cfg = fw_cfg.add_writable_file(
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
        let late = self.tables.map(|late| (late, session.clone()));
        let ecam = services.get::<EcamWindow>()?.clone();
        builder.try_add("fw-cfg", |context| {
            let fw_cfg = match late {
                Some((late, session)) => {
                    let LateTables { tables, initial } = late;
                    let space = context.config_space.clone();
                    fw_cfg.add_made_file(acpi_spec::TABLES_FILE, initial, move || {
                        let made = made_tables(&tables, &ecam, &space)?;
                        session.set_file(acpi_spec::TABLES_FILE, made.clone());
                        Some(made)
                    })?
                }
                None => fw_cfg,
            };
            Ok::<_, FirmwareDeviceError>(shared(fw_cfg.build(memory.clone())?))
        })?;
        Ok(())
    }
}

/// The content of [`acpi_spec::TABLES_FILE`] after what the firmware has programmed.
fn made_tables(
    tables: &MachineTables,
    ecam: &EcamWindow,
    space: &PciConfigSpace,
) -> Option<Vec<u8>> {
    let bars = q35::memory_bars(space);
    let files = tables
        .programmed(ecam.range().as_ref(), &bars)
        .and_then(|tables| tables.loader_files());
    match files {
        Ok(files) => {
            let mut files = files.into_iter();
            let file = files.find(|file| file.name == acpi_spec::TABLES_FILE);
            file.map(|file| file.bytes)
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "the ACPI tables do not follow what the firmware programmed"
            );
            None
        }
    }
}
