//! The configuration of hibernation.

use minicbor::Decode;
use minicbor::Encode;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Whether the firmware is preserved for a guest that hibernates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No. The store is not changed.
    #[default]
    Off,
    /// Yes.
    On,
}

/// Whether the host can read the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// It can.
    None,
    /// It cannot: VBS, SNP or TDX.
    Isolated,
}

/// When the token that a session started from is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Encode, Decode)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum ConsumePolicy {
    /// When the operating system has taken over or the guest powers off. After a crash before that, the next start
    /// resumes again.
    #[default]
    #[n(0)]
    Handoff,
    /// Before the VPs run. A crash before the operating system took over loses the session.
    #[n(1)]
    AtStart,
    /// When an operating system next powers off or resets the machine, or hibernates. After a crash before that, the
    /// next start uses the stored firmware again.
    #[n(2)]
    NextTransition,
}

/// The signal that an operating system has taken over from the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverSignal {
    /// The ACPI method `_WAK`, which only a guest that resumes runs.
    AcpiWake,
    /// A signal from the firmware at every boot (Hyper-V's UEFI).
    RuntimeHandoff,
}

/// How to start although the firmware of a hibernated guest cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Encode, Decode)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Override {
    /// Discard the session: token and stored firmware are deleted, and the VM starts as if it had been powered
    /// off.
    #[n(0)]
    Discard,
    /// Start on the host's firmware, on which the guest may fail to resume. Token and stored firmware stay until an
    /// operating system has taken over.
    #[n(1)]
    CurrentFirmware,
}

impl Override {
    /// All values.
    pub const ALL: [Self; 2] = [Self::Discard, Self::CurrentFirmware];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::CurrentFirmware => "current-firmware",
        }
    }

    /// What it does, for a message.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Discard => "discards the hibernated session",
            Self::CurrentFirmware => {
                "starts on the host's firmware, on which the guest may fail to resume; the token stays until \
                 it has"
            }
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl ConsumePolicy {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Handoff, Self::AtStart, Self::NextTransition];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::AtStart => "at-start",
            Self::NextTransition => "next-transition",
        }
    }
}

impl fmt::Display for ConsumePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An unknown name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not one of: {expected}")]
pub struct UnknownName {
    found: String,
    expected: String,
}

fn by_name<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, UnknownName> {
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| UnknownName {
            found: text.to_owned(),
            expected: all
                .iter()
                .map(|value| name(*value))
                .collect::<Vec<_>>()
                .join(", "),
        })
}

impl FromStr for Override {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        by_name(&Self::ALL, Self::name, text)
    }
}

impl FromStr for ConsumePolicy {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        by_name(&Self::ALL, Self::name, text)
    }
}

/// The configuration of hibernation for a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    mode: Mode,
    /// When the token is deleted.
    pub consume: ConsumePolicy,
    /// The signal that an operating system has taken over.
    pub takeover: TakeoverSignal,
    /// The override for the next start, and only for that.
    pub requested: Option<Override>,
}

/// Hibernation is on for an isolated VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an isolated VM cannot hibernate: its firmware is measured at each start, and restoring another \
     would contradict the measurement; turn hibernation off"
)]
pub struct IsolatedVm;

impl Config {
    /// The default configuration. An isolated VM cannot hibernate.
    pub fn new(
        mode: Mode,
        isolation: Isolation,
        takeover: TakeoverSignal,
    ) -> Result<Self, IsolatedVm> {
        if mode == Mode::On && isolation == Isolation::Isolated {
            return Err(IsolatedVm);
        }
        Ok(Self {
            mode,
            consume: ConsumePolicy::default(),
            takeover,
            requested: None,
        })
    }

    /// Whether hibernation is on.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolated_vms_are_refused() {
        let config = |mode, isolation| Config::new(mode, isolation, TakeoverSignal::AcpiWake);
        assert_eq!(config(Mode::On, Isolation::Isolated), Err(IsolatedVm));
        assert!(config(Mode::Off, Isolation::Isolated).is_ok());
        assert!(config(Mode::On, Isolation::None).is_ok());
    }

    #[test]
    fn names_round_trip() {
        for value in Override::ALL {
            assert_eq!(value.name().parse(), Ok(value));
        }
        for value in ConsumePolicy::ALL {
            assert_eq!(value.name().parse(), Ok(value));
        }
        let error = "keep".parse::<Override>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"keep\" is not one of: discard, current-firmware"
        );
    }
}
