//! How a VM starts. Nothing of it is part of the machine, and nothing of it is kept for the next start.

use firmware_hibernation::Override;
pub use machine_parts::AfterEnd;
pub use machine_parts::AfterGuest;
use minicbor::Decode;
use minicbor::Encode;
use state_unit::SavedUnits;

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
    /// Where the machine with this state stood. Guest RAM is a file that still has the content it had then.
    #[n(1)]
    Restore(#[n(0)] SavedUnits),
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
        for start in [Start::Boot(boot), Start::Restore(SavedUnits::default())] {
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
