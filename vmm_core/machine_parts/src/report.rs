//! What a machine's own threads tell its owner.

use crate::RunId;
use chipset_device::PowerEvent;
use std::time::Instant;
use virt::RunError;
use virt::VpIndex;
use virt::x86::Registers;

/// Something that the owner of a machine has to act on, and the run in which it happened.
#[derive(Debug)]
pub struct Report {
    /// The run. A report that was queued behind a reset belongs to an earlier one.
    pub run: RunId,
    /// What happened.
    pub kind: ReportKind,
}

/// What happened. But for [`ReportKind::FirstInstruction`], no VP enters the guest any more.
#[derive(Debug)]
pub enum ReportKind {
    /// The guest made a power request.
    Power(PowerEvent),
    /// The boot processor enters the guest for the first time.
    FirstInstruction(Instant),
    /// The VP shut down.
    TripleFault {
        /// Which VP.
        vp: VpIndex,
        /// Its registers, if they could be read.
        registers: Option<Box<Registers>>,
    },
    /// The VP cannot go on.
    Failed {
        /// Why.
        error: RunError,
        /// Its registers, if they could be read.
        registers: Option<Box<Registers>>,
    },
}
