//! A guest in an IGVM file, and what the host adds to it.

use super::BootError;
use super::FirmwareSource;
use super::UefiError;
use crate::machine::plan::MachineShape;
use crate::machine::platform::PciWindows;
use acpi_spec::TableSet;
use guest_memory::GuestMemory;
use guest_memory::MemoryRange;
use loader::GuestImage;
use loader::ImageFile;
use loader::ImageFileError;
use loader::VpRegisters;
use loader::igvm::IgvmImage;
use loader::igvm::IgvmLoadError;
use loader::igvm::IgvmMachine;
use loader::igvm::IgvmPlan;
use loader::linux::LinuxHost;
use loader::ovmf::ROM_END;
use openvmm_defs::config::Igvm;
use ovmf_image::FirmwareFile;
use std::path::Path;

/// A guest in an IGVM file. The file was read: a reset boots what the start booted.
pub(crate) struct IgvmBoot {
    plan: IgvmPlan,
    /// What is loaded with a Linux kernel.
    linux: Option<LinuxHost>,
}

impl IgvmBoot {
    /// A Linux kernel in a file, with what the host adds to it.
    pub(crate) fn linux(
        config: &Igvm,
        machine: &MachineShape<'_>,
        tables: &TableSet,
    ) -> Result<Self, BootError> {
        let plan = plan::<BootError>(config, machine, tables, None)?;
        let mut host = LinuxHost::new(machine.layout, machine.address_bits, tables)?;
        host.without(plan.registers());
        for (what, range) in host.placements() {
            plan.check_free(what, range)?;
        }
        Ok(Self {
            plan,
            linux: Some(host),
        })
    }

    /// Firmware for PCs in a file: the firmware, and what else the file loads.
    pub(crate) fn pc_uefi(
        config: &Igvm,
        machine: &MachineShape<'_>,
        tables: &TableSet,
    ) -> Result<(Self, FirmwareSource<'static>), BootError> {
        let plan = pc_plan(config, machine, tables)?;
        let source = FirmwareSource::Read {
            path: config.file.clone(),
            firmware: rom(config, &plan)?,
        };
        Ok((Self { plan, linux: None }, source))
    }

    /// Loads everything into guest memory, and returns the registers that VPs start with.
    pub(crate) fn load(&self, memory: &GuestMemory) -> Result<VpRegisters, BootError> {
        let mut image = GuestImage::new(memory.map());
        self.plan.load(&mut image)?;
        if let Some(linux) = &self.linux {
            linux.load(&mut image)?;
        }
        Ok(image.into_registers())
    }
}

/// Firmware for PCs in a file that has nothing else, as it must be if the guest hibernates: then the firmware is kept, and
/// nothing else of the file.
pub(crate) struct PackedFirmware<'a> {
    pub config: &'a Igvm,
    pub machine: &'a MachineShape<'a>,
    pub tables: TableSet,
}

impl PackedFirmware<'_> {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.config.file
    }

    /// The firmware.
    pub(super) fn open(&self) -> Result<FirmwareFile, UefiError> {
        let plan = pc_plan(self.config, self.machine, &self.tables)?;
        let firmware = rom(self.config, &plan)?;
        if plan.only_rom().is_none() {
            let path = self.config.file.clone();
            return Err(UefiError::IgvmFirmware { path });
        }
        Ok(firmware)
    }
}

/// The firmware in flash memory.
fn rom(config: &Igvm, plan: &IgvmPlan) -> Result<FirmwareFile, UefiError> {
    let path = &config.file;
    let rom = plan.rom();
    let rom = rom.ok_or_else(|| UefiError::NoFirmwareInIgvm { path: path.clone() })?;
    Ok(FirmwareFile::new(
        path,
        rom.read().map_err(UefiError::IgvmImport)?,
    )?)
}

/// Reads the file, and checks that it can be loaded on this PC, which has flash memory.
fn pc_plan(
    config: &Igvm,
    machine: &MachineShape<'_>,
    tables: &TableSet,
) -> Result<IgvmPlan, UefiError> {
    let flash = MemoryRange {
        start: ROM_END - ovmf_image::MAX_SIZE,
        end: ROM_END,
    };
    plan(config, machine, tables, Some(flash))
}

/// Reads the file, and checks that it can be loaded on this PC, which may have flash memory at `rom`.
fn plan<E: From<ImageFileError> + From<IgvmLoadError>>(
    config: &Igvm,
    machine: &MachineShape<'_>,
    tables: &TableSet,
    rom: Option<MemoryRange>,
) -> Result<IgvmPlan, E> {
    let image = IgvmImage::read(&ImageFile::open(&config.file)?)?;
    let windows = PciWindows::at_reset(machine.layout, machine.address_bits);
    let machine = IgvmMachine {
        layout: machine.layout,
        rom,
        vp_count: machine.config.topology.processors,
        command_line: config.cmdline.as_deref(),
        acpi: tables.tables(),
        low_mmio: windows.low,
        high_mmio: windows.high,
    };
    Ok(IgvmPlan::new(&image, &machine)?)
}
