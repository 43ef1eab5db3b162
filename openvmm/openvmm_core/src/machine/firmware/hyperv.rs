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
use acpi_spec::Table;
use guest_memory::GuestMemory;
use guest_memory::MemoryRange;
use loader::BSP;
use loader::GuestImage;
use loader::ImageFile;
use loader::ImageLoad;
use loader::ImportError;
use loader::VpRegister;
use loader::VpRegisters;
use loader::igvm::IgvmImage;
use loader::igvm::IgvmMachine;
use loader::igvm::IgvmPlan;
use loader::msvm;
use loader::msvm::MsvmImage;
use openvmm_defs::config::HypervUefiSettings;
use openvmm_defs::start::Start;
use ovmf_image::FirmwareFile;
use platform_digest::BlobDigest;
use platform_digest::PlatformView;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uefi_config::ENTROPY_LEN;
use uefi_config::replace_entropy;

/// The first bytes of an IGVM file.
const IGVM: &[u8] = b"IGVM";

/// The name under which the configuration is stored for a hibernated guest. There its random bytes are zero.
pub(crate) const CONFIG_FILE: &str = "uefi/config";

/// Where the host has the firmware.
#[derive(Debug, Copy, Clone)]
pub(crate) enum HypervFirmware<'a> {
    /// An image of it.
    Image(&'a Path),
    /// An IGVM file.
    Igvm(&'a Path),
}

/// Firmware of a generation-2 VM, and what it is started with.
pub(crate) struct HypervPlan {
    pub session: FirmwareSession,
    pub boot: HypervBoot,
}

/// What is loaded at power-on and after each reset.
pub(crate) struct HypervBoot {
    image: Image,
    /// The configuration, without random bytes.
    config: Vec<u8>,
    variable_mtrrs: Vec<VpRegister>,
    vps: u32,
}

/// Firmware that can be loaded, without its configuration.
enum Image {
    Msvm(MsvmImage),
    Igvm {
        plan: Box<IgvmPlan>,
        /// The file.
        bytes: Arc<[u8]>,
        /// The boot processor's registers that the host adds.
        registers: Vec<VpRegister>,
    },
}

impl HypervPlan {
    /// Decides which firmware runs and checks everything that can be checked before the machine is built.
    pub(crate) fn new(
        firmware: HypervFirmware<'_>,
        settings: &HypervUefiSettings,
        machine: &MachineShape<'_>,
        devices: &DevicePlan,
        store: Option<&PlannedStore>,
        start: &Start,
        events: HibernationSink,
    ) -> Result<Self, UefiError> {
        let ranges = Generation2Ranges::new(machine.config, machine.layout, machine.address_bits);
        let tables = acpi::generation_2(machine.config, machine.topology, &ranges)?;
        let host = Host {
            firmware,
            machine,
            ranges: &ranges,
            tables: &tables,
        };
        let config = hyperv_config::config(settings, machine, &ranges, &tables);
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
        let mut image = None;
        let session = match start {
            Start::Boot(_) => FirmwareSession::plan(session, || {
                let host = image.insert(host.image()?);
                let mut config = config;
                config.image_pages = host.pages();
                Ok::<_, UefiError>(LoadedFirmware {
                    code: host.bytes().clone(),
                    entry_gpa: host.entry_gpa(),
                    files: BTreeMap::from([(CONFIG_FILE.to_owned(), config.encode()?)]),
                    origin: FilesOrigin::Machine,
                })
            })?,
            Start::Restore(saved) => {
                let state = saved
                    .units
                    .get(SESSION_UNIT)
                    .ok_or(UefiError::NoSavedSession)?;
                FirmwareSession::resume(session, state)?
            }
        };
        let loaded = session.loaded();
        let config = loaded.files.get(CONFIG_FILE);
        let config = config.ok_or(UefiError::NoStoredConfig)?.clone();
        // What is stored may not be a configuration.
        replace_entropy(&mut config.clone(), &[0; ENTROPY_LEN])?;
        let image = match image {
            Some(image) => image,
            None => host.stored_image(&loaded.code)?,
        };
        image.check_config(&config)?;
        let boot = HypervBoot {
            image,
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
        self.image.load(&mut image, &config)?;
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

/// Where firmware is from, and the machine that it is for.
struct Host<'a> {
    firmware: HypervFirmware<'a>,
    machine: &'a MachineShape<'a>,
    ranges: &'a Generation2Ranges,
    tables: &'a [Table],
}

impl Host<'_> {
    /// The firmware in the host's file.
    fn image(&self) -> Result<Image, UefiError> {
        match self.firmware {
            HypervFirmware::Image(path) => {
                let file = FirmwareFile::open(path)?;
                let image = MsvmImage::new(file.bytes().into());
                image.map(Image::Msvm).map_err(|source| UefiError::Msvm {
                    path: path.into(),
                    source,
                })
            }
            HypervFirmware::Igvm(path) => {
                let image = self.igvm(&IgvmImage::read(&ImageFile::open(path)?)?)?;
                match self.machine.config.hibernation.enabled {
                    true => image.preserved(path),
                    false => Ok(image),
                }
            }
        }
    }

    /// The firmware of an earlier session: what [`Image::bytes`] was.
    fn stored_image(&self, bytes: &Arc<[u8]>) -> Result<Image, UefiError> {
        match self.firmware {
            HypervFirmware::Igvm(path) if bytes.starts_with(IGVM) => {
                self.igvm(&IgvmImage::new(path, bytes.clone()))
            }
            HypervFirmware::Igvm(_) | HypervFirmware::Image(_) => MsvmImage::new(bytes.clone())
                .map(Image::Msvm)
                .map_err(UefiError::StoredMsvm),
        }
    }

    fn igvm(&self, file: &IgvmImage) -> Result<Image, UefiError> {
        let mut plan = IgvmPlan::new(
            file,
            &IgvmMachine {
                layout: self.machine.layout,
                rom: None,
                vp_count: self.machine.topology.vps().len() as u32,
                command_line: None,
                acpi: self.tables,
                low_mmio: self.ranges.low_gap,
                high_mmio: Some(self.ranges.high_gap),
            },
        )?;
        plan.offer_r12(msvm::CONFIG_GPA);
        let is_missing = |register: &VpRegister| {
            let VpRegister::Msr(index, _) = register else {
                return true;
            };
            let mut given = plan.registers().iter();
            !given.any(|given| matches!(given, VpRegister::Msr(other, _) if other == index))
        };
        let registers = msvm::memory_types().into_iter();
        let registers = registers.filter(is_missing).collect();
        Ok(Image::Igvm {
            plan: Box::new(plan),
            bytes: file.bytes().clone(),
            registers,
        })
    }
}

impl Image {
    /// The firmware in the file `path` as what is stored for a hibernated guest, its image.
    fn preserved(self, path: &Path) -> Result<Self, UefiError> {
        match self {
            Self::Igvm {
                plan, registers, ..
            } => {
                let image = plan.msvm(&registers).map_err(UefiError::IgvmImport)?;
                image
                    .map(Self::Msvm)
                    .ok_or_else(|| UefiError::IgvmFirmware { path: path.into() })
            }
            image @ Self::Msvm(_) => Ok(image),
        }
    }

    /// What is kept of it.
    fn bytes(&self) -> &Arc<[u8]> {
        match self {
            Self::Msvm(image) => image.bytes(),
            Self::Igvm { bytes, .. } => bytes,
        }
    }

    /// The size of the firmware in pages. In an IGVM file it has the size that its addresses are made for.
    fn pages(&self) -> u32 {
        match self {
            Self::Msvm(image) => image.pages(),
            Self::Igvm { .. } => msvm::IMAGE_PAGES,
        }
    }

    fn entry_gpa(&self) -> u64 {
        match self {
            Self::Msvm(image) => image.entry_gpa(),
            Self::Igvm { plan, .. } => plan.entry_gpa(),
        }
    }

    /// Fails if something else is where the configuration goes.
    fn check_config(&self, config: &[u8]) -> Result<(), UefiError> {
        match self {
            Self::Msvm(_) => Ok(()),
            Self::Igvm { plan, .. } => {
                let range = msvm::config_range(msvm::CONFIG_GPA, config.len());
                Ok(plan.check_free(msvm::CONFIG, range)?)
            }
        }
    }

    fn load(&self, image: &mut dyn ImageLoad, config: &Arc<[u8]>) -> Result<(), ImportError> {
        match self {
            Self::Msvm(msvm) => msvm.load(image, Some(config)),
            Self::Igvm {
                plan, registers, ..
            } => {
                let end = msvm::config_range(msvm::CONFIG_GPA, config.len()).end;
                image.require_memory("the UEFI firmware", MemoryRange { start: 0, end })?;
                plan.load(image)?;
                for register in registers {
                    image.import_register(BSP, *register)?;
                }
                msvm::load_config(image, msvm::CONFIG_GPA, config)
            }
        }
    }
}
