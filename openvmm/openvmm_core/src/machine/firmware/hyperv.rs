//! UEFI firmware of a generation-2 VM of Hyper-V: which image runs, and what it is told of the machine.

use super::BootError;
use super::SESSION_UNIT;
use super::hyperv_config;
use super::session::FilesOrigin;
use super::session::FirmwarePlace;
use super::session::FirmwareSession;
use super::session::HibernationSink;
use super::session::LoadedFirmware;
use super::session::SessionConfig;
use super::uefi::UefiError;
use crate::machine::acpi;
use crate::machine::devices::DevicePlan;
use crate::machine::plan::MachineShape;
use crate::machine::platform;
use crate::machine::platform::Generation2Ranges;
use crate::machine::view;
use crate::machine::vmgs_store::PlannedStore;
use guest_memory::GuestMemory;
use loader::GuestImage;
use loader::VpRegister;
use loader::VpRegisters;
use loader::msvm;
use loader::msvm::MsvmImage;
use openvmm_defs::config::HypervUefi;
use openvmm_defs::start::Start;
use ovmf_image::FirmwareFile;
use platform_digest::BlobDigest;
use platform_digest::PlatformView;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uefi_config::ENTROPY_LEN;
use uefi_config::replace_entropy;

/// The name under which the configuration is stored for a hibernated guest. There its random bytes are zero.
pub(crate) const CONFIG_FILE: &str = "uefi/config";

/// Firmware of a generation-2 VM, and what it is started with.
pub(crate) struct HypervPlan {
    pub session: FirmwareSession,
    pub boot: HypervBoot,
}

/// What is loaded at power-on and after each reset.
pub(crate) struct HypervBoot {
    image: MsvmImage,
    /// The configuration, without random bytes.
    config: Vec<u8>,
    variable_mtrrs: Vec<VpRegister>,
    vps: u32,
}

impl HypervPlan {
    /// Decides which firmware runs and checks everything that can be checked before the machine is built.
    pub(crate) fn new(
        uefi: &HypervUefi,
        machine: &MachineShape<'_>,
        devices: &DevicePlan,
        store: Option<&PlannedStore>,
        start: &Start,
        events: HibernationSink,
    ) -> Result<Self, UefiError> {
        let ranges = Generation2Ranges::new(machine.config, machine.layout, machine.address_bits);
        let tables = acpi::generation_2(machine.config, machine.topology, &ranges)?;
        let config = hyperv_config::config(&uefi.settings, machine, &ranges, tables);
        let view = PlatformView {
            mmio: ranges.mmio(),
            acpi: BlobDigest::of(
                config
                    .acpi_tables
                    .iter()
                    .map(|table| ("table", table.as_slice())),
            ),
            smbios: hyperv_config::smbios_digest(&config),
            // The firmware boots what is on the disks.
            boot_files: machine.config.hibernation.enabled.then(Vec::new),
            ..view::platform_view(devices, machine)
        };
        let place = FirmwarePlace::Ram;
        let session = SessionConfig::new(place, machine, view, store, start, events);
        let session = match start {
            Start::Boot(_) => FirmwareSession::plan(session, || {
                let image = host_image(&uefi.firmware)?;
                let config = hyperv_config::for_image(config, &image).encode()?;
                Ok::<_, UefiError>(LoadedFirmware {
                    code: image.bytes().clone(),
                    entry_gpa: image.entry_gpa(),
                    files: BTreeMap::from([(CONFIG_FILE.to_owned(), config)]),
                    origin: FilesOrigin::Machine,
                })
            })?,
            Start::Restore(saved) => {
                let state = saved.get(SESSION_UNIT).ok_or(UefiError::NoSavedSession)?;
                FirmwareSession::resume(session, state)?
            }
        };
        let loaded = session.loaded();
        let config = loaded.files.get(CONFIG_FILE);
        let config = config.ok_or(UefiError::NoStoredConfig)?.clone();
        // What is stored may not be a configuration.
        replace_entropy(&mut config.clone(), &[0; ENTROPY_LEN])?;
        let boot = HypervBoot {
            image: MsvmImage::new(loaded.code.clone()).map_err(UefiError::StoredMsvm)?,
            config,
            variable_mtrrs: msvm::variable_mtrrs(
                machine.layout,
                platform::pci_high(machine.layout.end(), machine.address_bits)
                    .map_or(u64::MAX, |window| window.start),
                machine.address_bits,
            ),
            vps: machine.topology.vps().len() as u32,
        };
        Ok(Self { session, boot })
    }
}

impl HypervBoot {
    /// Loads the firmware and its configuration, with fresh random bytes, and returns the registers of all VPs.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<VpRegisters, BootError> {
        let mut entropy = [0; ENTROPY_LEN];
        getrandom::fill(&mut entropy).map_err(UefiError::Entropy)?;
        let mut config = self.config.clone();
        replace_entropy(&mut config, &entropy).map_err(UefiError::from)?;
        let config: Arc<[u8]> = config.into();
        let mut image = GuestImage::new(memory.map());
        self.image.load(&mut image, Some(&config))?;
        let mut registers = image.into_registers();
        for vp in 0..self.vps {
            let registers = registers.entry(vp).or_default();
            if vp != 0 {
                registers.extend(msvm::fixed_mtrrs());
            }
            registers.extend(&self.variable_mtrrs);
        }
        Ok(registers)
    }
}

/// The firmware in the host's file.
fn host_image(path: &Path) -> Result<MsvmImage, UefiError> {
    let file = FirmwareFile::open(path)?;
    MsvmImage::new(file.bytes().into()).map_err(|source| UefiError::Msvm {
        path: path.into(),
        source,
    })
}
