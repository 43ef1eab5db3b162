//! From a snapshot back to a machine's configuration and its state.

use mesh::payload;
use mesh::payload::DecodeError;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::config::VmgsMemory;
use openvmm_defs::start::SavedDisk;
use openvmm_defs::start::SavedMachine;
use snapshot::DiskRecord;
use snapshot::Snapshot;
use snapshot::SnapshotError;
use state_unit::DecodeUnitsError;
use state_unit::SavedUnits;
use std::path::Path;

/// What a snapshot says of itself.
pub type SnapshotSummary = snapshot::Manifest;

/// A machine as it can be made from a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorableVm {
    /// What it is. What belongs to the host can be changed: disks, networks, and the ends of serial ports.
    pub config: VmConfig,
    /// Where it begins.
    pub saved: SavedMachine,
}

/// Why a machine cannot be made from a snapshot. Nothing was created.
#[derive(Debug, thiserror::Error)]
pub enum RestoreSnapshotError {
    /// The snapshot is missing, damaged, or of another kind.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The configuration cannot be read.
    #[error("the snapshot's configuration cannot be read")]
    Config(#[source] DecodeError),
    /// The configuration is not what the manifest has to have.
    #[error("the snapshot's configuration cannot be read: it is not base64")]
    ConfigText,
    /// The configuration and the RAM do not belong together.
    #[error("the snapshot has {found} bytes of RAM, and its configuration says {expected}")]
    MemorySize {
        /// What the RAM has.
        found: u64,
        /// What the configuration says.
        expected: u64,
    },
    /// The state cannot be read.
    #[error("the snapshot's state cannot be read")]
    State(#[from] DecodeUnitsError),
    /// The units in the state are not those of the manifest.
    #[error("the snapshot's manifest and state do not list the same units: {0}")]
    Units(String),
    /// The host has no random bytes.
    #[error("cannot get random bytes from the host")]
    Random(#[from] getrandom::Error),
}

/// Reads the snapshot in `dir`. RAM is not read.
///
/// The machine is a copy that leaves the snapshot and the host's files of the original as they are: its RAM is mapped
/// privately, UEFI variables and a VMGS store stay in memory, and its generation ID is new.
pub fn open(dir: &Path) -> Result<RestorableVm, RestoreSnapshotError> {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let snapshot = Snapshot::open(&dir)?;
    let manifest = snapshot.manifest();
    let bytes = manifest.config_bytes();
    let bytes = bytes.ok_or(RestoreSnapshotError::ConfigText)?;
    let config = payload::decode(&bytes).map_err(RestoreSnapshotError::Config)?;
    let units = SavedUnits::decode(snapshot.state())?;
    same_units(manifest, &units)?;
    let mut generation_id = [0; 16];
    getrandom::fill(&mut generation_id)?;
    let config = private(config, &snapshot);
    if config.memory.size != manifest.memory.size {
        return Err(RestoreSnapshotError::MemorySize {
            found: manifest.memory.size,
            expected: config.memory.size,
        });
    }
    Ok(RestorableVm {
        config,
        saved: SavedMachine {
            units,
            memory: Some(snapshot.memory_path()),
            disks: Some(manifest.disks.iter().map(saved_disk).collect()),
            generation_id: Some(generation_id),
        },
    })
}

fn same_units(manifest: &SnapshotSummary, units: &SavedUnits) -> Result<(), RestoreSnapshotError> {
    let units = units.units();
    let names = |unit: Option<&str>| unit.unwrap_or("none").to_owned();
    for n in 0..units.len().max(manifest.units.len()) {
        let state = units.get(n).map(|unit| unit.name.as_str());
        let listed = manifest.units.get(n).map(|unit| unit.name.as_str());
        if state != listed {
            let text = format!("{} in place of {}", names(state), names(listed));
            return Err(RestoreSnapshotError::Units(text));
        }
    }
    Ok(())
}

fn saved_disk(record: &DiskRecord) -> SavedDisk {
    SavedDisk {
        device: record.device.clone(),
        path: record.path.as_ref().map(Into::into),
        size: record.size,
        sector: record.sector,
        read_only: record.read_only,
        serial: record.serial.clone(),
        content: record.content.clone(),
        modified: record.modified.clone(),
    }
}

/// The configuration of a copy that writes nothing of the original.
fn private(mut config: VmConfig, snapshot: &Snapshot) -> VmConfig {
    config.memory = MemoryConfig {
        size: config.memory.size,
        file: None,
        pages: HostPages::Default,
        population: Population::OnDemand,
        sharing: None,
    };
    let variables = match &mut config.load_mode {
        LoadMode::PcUefi(uefi) => Some(&mut uefi.variables),
        LoadMode::Igvm(igvm) => match &mut igvm.host {
            IgvmHost::PcUefi(uefi) => Some(&mut uefi.variables),
            IgvmHost::Linux | IgvmHost::HypervUefi(_) => None,
        },
        LoadMode::LinuxDirect(_) | LoadMode::HypervUefi(_) => None,
    };
    if let Some(variables @ (UefiVariables::File(_) | UefiVariables::Memory(_))) = variables {
        // Their content is part of the state.
        *variables = UefiVariables::Memory(None);
    }
    if let Some(path) = snapshot.vmgs_path() {
        config.vmgs = Some(path);
        config.vmgs_memory = Some(VmgsMemory::Overlay);
    }
    config
}
