//! Snapshots of a machine: what is written of it, and what is read back.

mod host_files;
mod restore;

pub use restore::RestorableVm;
pub use restore::RestoreSnapshotError;
pub use restore::SnapshotSummary;
pub use restore::open as open_snapshot;

use super::LoadGuestError;
use super::Machine;
use super::MediaError;
use super::devices::DevicePlan;
use super::view;
use super::vmgs_store::StoreImage;
use crate::machine::MachineError;
use disk_spec::DiskSource;
use disk_spec::VirtioBlkHandle;
use host_files::absolute;
use machine_parts::Change;
use machine_parts::LifecycleError;
use machine_parts::MachineState;
use machine_parts::saved_processor;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MachineProfile;
use openvmm_defs::config::VmConfig;
use openvmm_defs::config::VmgsMemory;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::request::SavedSnapshot;
use openvmm_defs::start::SavedDisk;
use openvmm_defs::start::SavedMachine;
use platform_digest::DiskContent;
use platform_digest::PlatformDisk;
use platform_digest::cpu_features;
use serde_json::Value;
use serde_json::json;
use snapshot::Contents;
use snapshot::CpuidRecord;
use snapshot::DiskRecord;
use snapshot::ProcessorRecord;
use snapshot::UnitRecord;
use snapshot::WriteError;
use state_unit::SavedUnits;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;
use std::time::UNIX_EPOCH;
use uuid::Uuid;
use virt::HostKind;

/// The program that writes snapshots.
const PRODUCT: &str = concat!("openvmm ", env!("CARGO_PKG_VERSION"));

/// Why a snapshot was not saved. The machine goes on as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveSnapshotError {
    /// The machine has halted.
    #[error("the VM has halted")]
    Halted,
    /// A disk's content would be lost.
    #[error(
        "{device} cannot be saved: what the guest wrote to it is in this process's memory; use a file (file:PATH)"
    )]
    DiskInMemory {
        /// The name of the disk's device.
        device: String,
    },
    /// The content of the VMGS store would be lost.
    #[error(
        "the VMGS store cannot be saved: it is in this process's memory; use a file (--vmgs PATH)"
    )]
    StoreInMemory,
    /// The VMGS store cannot be read.
    #[error("failed to read the VMGS store")]
    Store(#[source] io::Error),
    /// The machine cannot be paused, or one of its units cannot be saved.
    #[error(transparent)]
    Machine(#[from] LifecycleError<LoadGuestError>),
    /// What the guest wrote to its disks is not on them.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A path of the configuration cannot be made independent of the working directory.
    #[error("the working directory is not known")]
    Directory(#[source] io::Error),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a disk is not what the saved machine had. Nothing was created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedDiskError {
    /// It is not part of the configuration.
    #[error("the saved machine had a disk {device}, which this machine does not have")]
    Missing {
        /// The name of its device.
        device: String,
    },
    /// It is another one.
    #[error(
        "{device}{} is not the disk of the saved machine: its {what} was {saved}, and is {found}",
        of_file(.path.as_ref())
    )]
    Other {
        /// The name of its device.
        device: String,
        /// Its file.
        path: Option<PathBuf>,
        /// What is different.
        what: &'static str,
        /// What it was.
        saved: String,
        /// What it is.
        found: String,
    },
    /// It was written since the machine was saved.
    #[error(
        "{device}{} was written after the machine was saved: the guest would not find on it what it knows; name a copy from \
         that time with --disk",
        of_file(.path.as_ref())
    )]
    Changed {
        /// The name of its device.
        device: String,
        /// Its file.
        path: Option<PathBuf>,
    },
}

fn of_file(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| format!(" ({})", path.display()))
}

/// A snapshot to be saved.
pub(crate) struct SnapshotRequest<'a> {
    pub dir: &'a Path,
    /// The machine's configuration.
    pub config: &'a VmConfig,
    /// How the host virtualizes.
    pub host: HostKind,
    /// Is told how many bytes of how many of guest RAM were looked at.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl Machine {
    /// Saves the machine to a new directory. It is paused meanwhile.
    pub(crate) fn save_snapshot(
        &mut self,
        request: SnapshotRequest<'_>,
    ) -> Result<SavedSnapshot, SaveSnapshotError> {
        if self.lifecycle.state() == MachineState::Halted {
            return Err(SaveSnapshotError::Halted);
        }
        snapshot::check_target(request.dir)?;
        check_savable(request.config)?;
        let began = Instant::now();
        let paused = self.lifecycle.pause()?;
        let saved = self.write_snapshot(request);
        if paused == Change::Unchanged {
            return saved;
        }
        let paused_ms = began.elapsed().as_millis() as u64;
        // Whatever became of the snapshot.
        self.lifecycle.resume()?;
        Ok(SavedSnapshot {
            paused_ms,
            ..saved?
        })
    }

    fn write_snapshot(
        &mut self,
        request: SnapshotRequest<'_>,
    ) -> Result<SavedSnapshot, SaveSnapshotError> {
        let SnapshotRequest {
            dir,
            config,
            host,
            progress,
        } = request;
        self.lifecycle.guest().media.sync()?;
        let units = self.lifecycle.save()?;
        let guest = self.lifecycle.guest();
        let mut config = config.clone();
        absolute(&mut config).map_err(SaveSnapshotError::Directory)?;
        let disks = guest.media.disks();
        let vmgs = self.store.as_ref().map(StoreImage::read).transpose();
        let vmgs = vmgs.map_err(SaveSnapshotError::Store)?;
        let state = units.encode();
        let contents = Contents {
            product: PRODUCT,
            machine: summary(&config),
            config: &mesh::payload::encode(&config),
            processor: processor_record(&units, host),
            disks: disks
                .iter()
                .map(|disk| disk_record(&config, disk))
                .collect(),
            units: unit_records(&units),
            state: &state,
            memory: &guest.memory,
            vmgs: vmgs.as_deref(),
        };
        let written = snapshot::write(dir, contents, progress)?;
        Ok(SavedSnapshot {
            memory: written.memory,
            stored: written.stored,
            paused_ms: 0,
        })
    }
}

/// Refuses what would be lost with this process.
fn check_savable(config: &VmConfig) -> Result<(), SaveSnapshotError> {
    for device in &config.pci_devices {
        let Some(disk) = disk_of(device) else {
            continue;
        };
        let in_memory = match disk.disk.source {
            DiskSource::File(_) => false,
            DiskSource::Memory { .. } => disk.disk.access != disk_backend::DiskAccess::ReadOnly,
            DiskSource::Overlay(_) => true,
        };
        if in_memory {
            return Err(SaveSnapshotError::DiskInMemory {
                device: device.name.clone(),
            });
        }
    }
    match config.vmgs_memory {
        None | Some(VmgsMemory::Overlay) => Ok(()),
        Some(VmgsMemory::New(_)) => Err(SaveSnapshotError::StoreInMemory),
    }
}

/// The disk of a device, if it is one.
fn disk_of(device: &PciDeviceConfig) -> Option<VirtioBlkHandle> {
    device.resource.handle::<VirtioBlkHandle>()?.ok()
}

/// The file of the disk with this device.
fn disk_path(config: &VmConfig, device: &str) -> Option<PathBuf> {
    let mut devices = config.pci_devices.iter();
    let device = devices.find(|found| found.name == device)?;
    match disk_of(device)?.disk.source {
        DiskSource::File(path) | DiskSource::Overlay(path) => Some(path),
        DiskSource::Memory { .. } => None,
    }
}

/// When a file was last written, as a manifest has it.
fn modified(path: &Path) -> Option<String> {
    let modified = path.metadata().ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_nanos().to_string())
}

fn disk_record(config: &VmConfig, disk: &PlatformDisk) -> DiskRecord {
    let path = disk_path(config, &disk.name);
    DiskRecord {
        device: disk.name.clone(),
        size: disk.size,
        sector: disk.sector,
        read_only: disk.read_only,
        serial: disk.serial.clone(),
        content: match &disk.content {
            DiskContent::Known(content) => Some(content.clone()),
            DiskContent::Unknown | DiskContent::NotRead => None,
        },
        modified: path.as_deref().and_then(modified),
        path: path.map(|path| path.to_string_lossy().into_owned()),
    }
}

fn unit_records(units: &SavedUnits) -> Vec<UnitRecord> {
    let units = units.units().iter();
    units
        .map(|unit| UnitRecord {
            name: unit.name.clone(),
            size: unit.state.as_bytes().len() as u64,
        })
        .collect()
}

fn processor_record(units: &SavedUnits, host: HostKind) -> ProcessorRecord {
    let virtualization = match host {
        HostKind::Vmx => "vmx",
        HostKind::Svm => "svm",
        HostKind::Software => "software",
        HostKind::Unknown => "unknown",
    };
    let saved = units.get("vps").map(saved_processor);
    let Some(Ok(Some(saved))) = saved else {
        return ProcessorRecord {
            virtualization: virtualization.to_owned(),
            ..ProcessorRecord::default()
        };
    };
    let cpuid = view::cpuid(&saved.cpuid);
    ProcessorRecord {
        vendor: cpu_features::vendor(&cpuid).unwrap_or_default(),
        model: cpu_features::model(&cpuid).unwrap_or_default(),
        tsc_khz: Some(saved.tsc_khz),
        virtualization: virtualization.to_owned(),
        cpuid: cpuid
            .iter()
            .map(|leaf| CpuidRecord {
                leaf: leaf.leaf,
                subleaf: leaf.subleaf,
                registers: leaf.registers,
            })
            .collect(),
    }
}

/// The configuration, for people.
fn summary(config: &VmConfig) -> Value {
    let profile = match config.load_mode.profile() {
        MachineProfile::LinuxDirect => "linux-direct",
        MachineProfile::PcUefi => "pc-uefi",
        MachineProfile::HypervUefi => "hyperv-uefi",
    };
    let starts = match &config.load_mode {
        LoadMode::LinuxDirect(linux) => json!({"kernel": linux.kernel, "cmdline": linux.cmdline}),
        LoadMode::PcUefi(uefi) => json!({"firmware": uefi.code}),
        LoadMode::HypervUefi(uefi) => json!({"firmware": uefi.firmware}),
        LoadMode::Igvm(igvm) => json!({"igvm": igvm.file}),
    };
    let pci = config.pci_devices.iter().map(|device| {
        json!({
            "name": device.name,
            "address": device.slot.address().to_string(),
            "kind": device.resource.id(),
        })
    });
    let chipset = config
        .chipset_devices
        .iter()
        .map(|device| json!({"name": device.name, "kind": device.resource.id()}));
    json!({
        "profile": profile,
        "starts": starts,
        "processors": config.topology.processors,
        "memory_bytes": config.memory.size,
        "irqchip": match config.irqchip {
            virt::IrqchipMode::Kernel => "kernel",
            virt::IrqchipMode::Split => "split",
        },
        "hibernation": config.hibernation.enabled,
        "uuid": Uuid::from_bytes(config.uuid).to_string(),
        "devices": pci.chain(chipset).collect::<Vec<_>>(),
    })
}

/// Refuses a saved machine that lacks a device, before anything is created. When the units are restored, all are compared.
pub(crate) fn check_units(devices: &DevicePlan, saved: &SavedMachine) -> Result<(), MachineError> {
    match devices.names().find(|name| saved.units.get(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(MachineError::NoSavedState(name.to_owned())),
    }
}

/// Compares the disks of `config` with those of the saved machine.
pub(crate) fn check_disks(
    config: &VmConfig,
    devices: &DevicePlan,
    saved: &SavedMachine,
) -> Result<(), MachineError> {
    let Some(expected) = &saved.disks else {
        return Ok(());
    };
    if expected.is_empty() {
        return Ok(());
    }
    let found = devices.disks()?;
    for disk in expected {
        let found = found.iter().find(|found| found.name == disk.device);
        let found = found.ok_or_else(|| SavedDiskError::Missing {
            device: disk.device.clone(),
        })?;
        compare_disk(disk, found, disk_path(config, &disk.device))?;
    }
    Ok(())
}

fn compare_disk(
    saved: &SavedDisk,
    found: &PlatformDisk,
    path: Option<PathBuf>,
) -> Result<(), SavedDiskError> {
    let content = |content: Option<&String>| match content {
        Some(content) => content.clone(),
        None => "not known".to_owned(),
    };
    let access = |read_only| match read_only {
        true => "read-only".to_owned(),
        false => "read-write".to_owned(),
    };
    let found_content = match &found.content {
        DiskContent::Known(content) => Some(content),
        DiskContent::Unknown | DiskContent::NotRead => None,
    };
    let differences = [
        ("size", saved.size.to_string(), found.size.to_string()),
        (
            "sector size",
            saved.sector.to_string(),
            found.sector.to_string(),
        ),
        ("access", access(saved.read_only), access(found.read_only)),
        ("serial number", saved.serial.clone(), found.serial.clone()),
        (
            "content",
            content(saved.content.as_ref()),
            content(found_content),
        ),
    ];
    for (what, saved_value, found_value) in differences {
        if saved_value != found_value {
            return Err(SavedDiskError::Other {
                device: saved.device.clone(),
                path,
                what,
                saved: saved_value,
                found: found_value,
            });
        }
    }
    // A copy has a time of its own.
    let same_file = path.is_some() && path == saved.path;
    if same_file && path.as_deref().and_then(modified) != saved.modified {
        return Err(SavedDiskError::Changed {
            device: saved.device.clone(),
            path,
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
