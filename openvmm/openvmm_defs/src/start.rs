//! How a VM starts. Nothing of it is part of the machine, and nothing of it is kept for the next start.

use firmware_hibernation::Override;
pub use machine_parts::AfterEnd;
pub use machine_parts::AfterGuest;
use minicbor::Decode;
use minicbor::Encode;
use state_unit::SavedUnits;
use std::path::PathBuf;

/// One start of a VM.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct StartOptions {
    /// Where the guest begins.
    #[n(1)]
    pub start: Start,
    /// Whether it runs at once.
    #[n(2)]
    pub initial_state: InitialState,
    /// What the machine does when the guest has ended.
    #[n(3)]
    pub after_guest: AfterGuest,
}

/// Where the guest begins.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Start {
    /// At power-on.
    #[n(0)]
    Boot(#[n(0)] BootOptions),
    /// Where this machine stood when it was saved.
    #[n(1)]
    Restore(#[n(0)] Box<SavedMachine>),
}

/// A machine that was saved, and what is different for this copy of it.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct SavedMachine {
    /// The state of its units.
    #[n(1)]
    pub units: SavedUnits,
    /// The file with its RAM, which is mapped privately; `None` if the configured RAM is a file that still has the content
    /// it had then.
    #[cbor(n(2), with = "mesh::encoding::optional_path", has_nil)]
    pub memory: Option<PathBuf>,
    /// Its disks, which have to be as they were; none are compared where `None`.
    #[n(3)]
    pub disks: Option<Vec<SavedDisk>>,
    /// The new generation ID of a machine that may be one of several copies; the saved one stays where `None`.
    #[n(4)]
    pub generation_id: Option<[u8; 16]>,
}

/// A disk of a machine that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SavedDisk {
    /// The name of its device.
    #[n(1)]
    pub device: String,
    /// Its file.
    #[cbor(n(2), with = "mesh::encoding::optional_path", has_nil)]
    pub path: Option<PathBuf>,
    /// Its size in bytes.
    #[n(3)]
    pub size: u64,
    /// The size of a sector in bytes.
    #[n(4)]
    pub sector: u32,
    /// Whether the guest could only read it.
    #[n(5)]
    pub read_only: bool,
    /// The serial number that the guest saw.
    #[n(6)]
    pub serial: String,
    /// What was on it, as far as that can be told from its start.
    #[n(7)]
    pub content: Option<String>,
    /// When its file was last written, as text: nanoseconds since 1970.
    #[n(8)]
    pub modified: Option<String>,
}

impl From<SavedUnits> for Start {
    fn from(units: SavedUnits) -> Self {
        Self::Restore(Box::new(SavedMachine {
            units,
            ..SavedMachine::default()
        }))
    }
}

/// What holds for one boot.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct BootOptions {
    /// How to start although the firmware stored for a hibernated guest cannot be used, or is not wanted.
    #[n(1)]
    pub hibernation_override: Option<Override>,
    /// Whether the VMGS store is made anew although there is one.
    #[n(2)]
    pub vmgs_format: Option<FormatVmgs>,
}

/// When a VMGS store is made anew, and its content lost.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FormatVmgs {
    /// When it is damaged, or what is there is no store.
    #[n(0)]
    IfDamaged,
    /// Always.
    #[n(1)]
    Always,
}

/// Whether a new VM runs at once.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum InitialState {
    /// It does.
    #[default]
    #[n(0)]
    Running,
    /// It runs when it is resumed.
    #[n(1)]
    Paused,
}

impl Default for Start {
    fn default() -> Self {
        Self::Boot(BootOptions::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::payload;

    #[test]
    fn each_start_survives_encoding() {
        let boot = BootOptions {
            hibernation_override: Some(Override::Discard),
            vmgs_format: Some(FormatVmgs::IfDamaged),
        };
        for start in [Start::Boot(boot), Start::from(SavedUnits::default())] {
            let options = StartOptions {
                start,
                initial_state: InitialState::Paused,
                after_guest: AfterGuest {
                    crash: AfterEnd::Restart,
                    ..AfterGuest::default()
                },
            };
            assert_eq!(payload::decode(&payload::encode(&options)), Ok(options));
        }
    }
}
