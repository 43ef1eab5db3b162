//! The devices of UEFI firmware: flash memory below 4 GiB, the firmware configuration device, the generation ID.

use super::session::FirmwareSession;
use super::uefi::UefiError;
use super::uefi::UefiPlan;
use super::uefi::VariableStorage;
use super::uefi::Variables;
use crate::machine::inventory;
use crate::machine::vmgs_store::PlannedStore;
use chipset::pm::PmControl;
use flash::Flash;
use flash::FlashConfig;
use flash::MemoryStorage;
use flash::VmgsStorage;
use generation_id::GenerationId;
use guest_memory::GuestMemory;
use loader::GuestImage;
use loader::ovmf;
use machine_parts::PartitionRom;
use std::sync::Arc;
use virt::Partition;
use vmotherboard::ChipsetBuilder;

/// The general-purpose event that says that the generation ID has changed.
pub(crate) const GENERATION_ID_EVENT: u8 = 0;

/// What they are plugged into.
pub(crate) struct FirmwareSockets<'a> {
    pub builder: &'a mut ChipsetBuilder,
    pub partition: &'a Arc<dyn Partition>,
    pub memory: &'a GuestMemory,
    pub pm: &'a PmControl,
}

impl UefiPlan {
    /// Adds the firmware's devices to the chipset. `store` is the VM's VMGS store.
    pub(crate) fn add_devices(
        self,
        uuid: [u8; 16],
        store: Option<&PlannedStore>,
        sockets: FirmwareSockets<'_>,
    ) -> Result<FirmwareSession, UefiError> {
        let FirmwareSockets {
            builder,
            partition,
            memory,
            pm,
        } = sockets;
        let chip = |name: &str, gpa: u64, size: usize| -> Result<FlashConfig, UefiError> {
            let region = guest_memory::device_region(gpa, size as u64)?;
            Ok(FlashConfig {
                name: name.to_owned(),
                region: region.clone(),
                mapping: Arc::new(PartitionRom::new(partition.clone(), region)),
            })
        };
        let mut image = GuestImage::new(memory.map());
        let code = ovmf::load(&mut image, &self.session.loaded().code)?;
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
                    let client = store
                        .and_then(PlannedStore::client)
                        .ok_or(UefiError::NoVmgs)?;
                    let (storage, _) = pal_async::block_on(VmgsStorage::open(client.clone()))?;
                    Flash::variables(config, content, storage)?
                }
            };
            builder.add("flash-variables", |_| flash);
        }
        let generation_id = builder.add("generation-id", |_| {
            GenerationId::new(
                inventory::generation_id(uuid),
                memory.clone(),
                pm.gpe(GENERATION_ID_EVENT),
            )
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
        Ok(self.session)
    }
}
