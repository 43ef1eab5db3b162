//! What happens to a VM, as its front ends hear of it.

use crate::request::SavedSnapshot;
use firmware_hibernation::HibernationEvent;
pub use machine_parts::HaltReason;
pub use machine_parts::LifecycleEvent;
use std::path::PathBuf;
use std::time::Instant;

/// An event, and when it happened.
#[derive(Debug, Clone)]
pub struct VmEvent {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: VmEventKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum VmEventKind {
    /// Everything the configuration names exists.
    Created,
    /// The VM started, stopped or was reset.
    Lifecycle(LifecycleEvent),
    /// A user pressed the power button.
    PowerButton,
    /// A snapshot is being written.
    SnapshotProgress {
        /// How many bytes of guest RAM were looked at.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// A snapshot was written.
    SnapshotSaved {
        /// Its directory.
        dir: PathBuf,
        /// What was written.
        saved: SavedSnapshot,
    },
    /// Something happened to the firmware that is kept for a hibernated guest.
    Hibernation(HibernationEvent),
}
