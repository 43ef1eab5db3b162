//! The life of a machine: power-on, pause, reset and halt, in an order that is the same for every front end.

use crate::Report;
use crate::ReportKind;
use crate::VpSet;
use chipset_device::PowerEvent;
use error_chain::Chain;
use state_unit::ResetUnitsError;
use state_unit::RestoreUnitsError;
use state_unit::SaveUnitsError;
use state_unit::SavedUnits;
use state_unit::StateUnits;
use state_unit::WrongState;
use std::error::Error;
use std::time::Instant;
use virt::VpIndex;
use virt::x86::Registers;

/// What a front end adds to a machine's life.
pub trait Guest: Send {
    /// Why guest memory or the boot processor cannot be prepared.
    type LoadError: Error + Send + Sync + 'static;

    /// Prepares guest memory and the VPs' registers for a start. All units are reset and the VPs are stopped.
    fn load(&mut self, vps: &VpSet) -> Result<(), Self::LoadError>;

    /// Makes durable what a guest that has ended relies on. All units are stopped. An error replaces the reason.
    fn settle(&mut self, ending: Ending<'_>) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// How a guest ended.
#[derive(Debug, Copy, Clone)]
pub enum Ending<'a> {
    /// The machine halted.
    Halted(&'a HaltReason),
    /// The owner stopped the machine for good while the guest ran or was paused.
    Stopped,
}

/// Why a machine halted.
#[derive(Debug, Clone)]
pub enum HaltReason {
    /// The guest powered off.
    PowerOff,
    /// The guest hibernated.
    Hibernate,
    /// The guest reset the machine, and [`AfterGuest::reset`] is not to restart it.
    Reset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// A VP shut down.
    TripleFault {
        /// Which VP.
        vp: VpIndex,
        /// Its registers, if they could be read.
        registers: Option<Box<Registers>>,
    },
    /// The hypervisor could not run a VP; the text says why.
    Hypervisor(String),
    /// The VMM failed; the text says how.
    Error(String),
}

impl HaltReason {
    /// The reason's stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PowerOff => "power_off",
            Self::Hibernate => "hibernate",
            Self::Reset => "reset",
            Self::GuestPanic => "guest_panic",
            Self::TripleFault { .. } => "triple_fault",
            Self::Hypervisor(_) => "hypervisor_error",
            Self::Error(_) => "error",
        }
    }
}

/// What a machine does when its guest has ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum AfterEnd {
    /// It is reset and starts again.
    #[n(0)]
    Restart,
    /// It halts.
    #[n(1)]
    Halt,
}

/// What a machine does when its guest has ended, by how that ended. If it hibernated, the machine halts.
#[derive(Debug, Copy, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct AfterGuest {
    /// It reset the machine.
    #[n(1)]
    pub reset: AfterEnd,
    /// It powered off.
    #[n(2)]
    pub power_off: AfterEnd,
    /// A VP shut down, or the guest's kernel panicked.
    #[n(3)]
    pub crash: AfterEnd,
}

impl Default for AfterGuest {
    /// As hardware does.
    fn default() -> Self {
        Self {
            reset: AfterEnd::Restart,
            power_off: AfterEnd::Halt,
            crash: AfterEnd::Halt,
        }
    }
}

/// Something that happened to a machine.
#[derive(Debug, Clone)]
pub enum LifecycleEvent {
    /// The VPs may run for the first time.
    Started,
    /// The boot processor is about to execute its first instruction.
    FirstInstruction,
    /// The machine was paused.
    Paused,
    /// The machine was resumed.
    Resumed,
    /// The machine was reset and starts again.
    Reset,
    /// The machine has halted.
    Halted(HaltReason),
}

/// What a machine is doing.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// The VPs may run.
    Running,
    /// Everything is stopped, and can go on.
    Paused,
    /// The machine runs no more.
    Halted,
}

/// Whether a request changed anything.
#[derive(Debug, Copy, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Change {
    /// It did.
    #[n(0)]
    Changed,
    /// The machine was in the requested state already.
    #[n(1)]
    Unchanged,
}

/// Why a machine could not be started, reset, saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError<E: Error + 'static> {
    /// The machine has halted.
    #[error("the VM has halted")]
    Halted,
    /// The machine has to be paused first.
    #[error("the VM is running; pause it first")]
    Running,
    /// The units are not in a state to start from.
    #[error("starting the VM failed")]
    Start(#[from] WrongState),
    /// A unit cannot be reset.
    #[error("resetting the VM failed")]
    Reset(#[from] ResetUnitsError),
    /// What runs first cannot be loaded.
    #[error("loading what the VM runs first failed")]
    Load(#[source] E),
    /// A unit cannot be saved.
    #[error("saving the VM failed")]
    Save(#[from] SaveUnitsError),
    /// A unit cannot be restored.
    #[error("restoring the VM failed")]
    Restore(#[from] RestoreUnitsError),
}

/// A machine and what it is doing.
pub struct Lifecycle<G: Guest> {
    units: StateUnits,
    vps: VpSet,
    guest: G,
    state: MachineState,
    has_run: bool,
    after_guest: AfterGuest,
    events: Box<dyn Fn(Instant, LifecycleEvent) + Send>,
}

impl<G: Guest> Lifecycle<G> {
    /// A paused machine, of which nothing has been loaded. `events` is called on the thread that uses the machine.
    pub fn new(
        units: StateUnits,
        vps: VpSet,
        guest: G,
        after_guest: AfterGuest,
        events: impl Fn(Instant, LifecycleEvent) + Send + 'static,
    ) -> Self {
        Self {
            units,
            vps,
            guest,
            state: MachineState::Paused,
            has_run: false,
            after_guest,
            events: Box::new(events),
        }
    }

    /// Prepares the first start of a machine that was just built.
    pub fn load(&mut self) -> Result<(), LifecycleError<G::LoadError>> {
        self.guest.load(&self.vps).map_err(LifecycleError::Load)
    }

    /// Takes the saved state of a machine in place of [`Lifecycle::load`]. Every unit must be in it, and no other.
    pub fn restore(&mut self, saved: &SavedUnits) -> Result<(), LifecycleError<G::LoadError>> {
        Ok(self.units.restore(saved)?)
    }

    /// The state of every unit. The machine must be paused.
    pub fn save(&mut self) -> Result<SavedUnits, LifecycleError<G::LoadError>> {
        match self.state {
            MachineState::Halted => Err(LifecycleError::Halted),
            MachineState::Running => Err(LifecycleError::Running),
            MachineState::Paused => Ok(self.units.save()?),
        }
    }

    /// What the machine is doing.
    pub fn state(&self) -> MachineState {
        self.state
    }

    /// The front end's part.
    pub fn guest(&mut self) -> &mut G {
        &mut self.guest
    }

    /// Pauses the machine.
    pub fn pause(&mut self) -> Result<Change, LifecycleError<G::LoadError>> {
        match self.state {
            MachineState::Halted => Err(LifecycleError::Halted),
            MachineState::Paused => Ok(Change::Unchanged),
            MachineState::Running => {
                self.units.stop();
                self.state = MachineState::Paused;
                self.emit(LifecycleEvent::Paused);
                Ok(Change::Changed)
            }
        }
    }

    /// Lets the machine run, for the first time or again. A machine that cannot start halts.
    pub fn resume(&mut self) -> Result<Change, LifecycleError<G::LoadError>> {
        match self.state {
            MachineState::Halted => Err(LifecycleError::Halted),
            MachineState::Running => Ok(Change::Unchanged),
            MachineState::Paused => {
                let event = match std::mem::replace(&mut self.has_run, true) {
                    true => LifecycleEvent::Resumed,
                    false => LifecycleEvent::Started,
                };
                // Emitted before the VPs run, so that it precedes what they cause.
                self.emit(event);
                self.start()?;
                Ok(Change::Changed)
            }
        }
    }

    /// Resets the machine. It starts again, or stays paused if it was. A machine that cannot be reset halts.
    pub fn reset(&mut self) -> Result<(), LifecycleError<G::LoadError>> {
        if self.state == MachineState::Halted {
            return Err(LifecycleError::Halted);
        }
        let result = self.try_reset();
        if let Err(error) = &result {
            self.halt(HaltReason::Error(Chain(error).to_string()));
        }
        result
    }

    fn try_reset(&mut self) -> Result<(), LifecycleError<G::LoadError>> {
        let running = self.state == MachineState::Running;
        self.units.stop();
        self.state = MachineState::Paused;
        self.vps.control().begin_run();
        self.units.reset()?;
        self.load()?;
        self.emit(LifecycleEvent::Reset);
        if running {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), LifecycleError<G::LoadError>> {
        match self.units.start() {
            Ok(()) => {
                self.state = MachineState::Running;
                Ok(())
            }
            Err(error) => {
                let error = LifecycleError::Start(error);
                self.halt(HaltReason::Error(Chain(&error).to_string()));
                Err(error)
            }
        }
    }

    /// Acts on what the machine's threads report. A report of an earlier run has no effect.
    pub fn report(&mut self, report: Report) {
        if report.run != self.vps.control().run() {
            tracing::debug!(?report, "the report belongs to an earlier run");
            return;
        }
        match report.kind {
            ReportKind::FirstInstruction(at) => {
                (self.events)(at, LifecycleEvent::FirstInstruction);
            }
            ReportKind::Power(event) => self.power(event),
            ReportKind::TripleFault { vp, registers } => {
                let reason = HaltReason::TripleFault { vp, registers };
                self.end(self.after_guest.crash, reason);
            }
            ReportKind::Failed { error, registers } => {
                if let Some(registers) = registers {
                    tracing::error!("registers at the failure:\n{registers}");
                }
                self.halt(HaltReason::Hypervisor(Chain(&error).to_string()));
            }
        }
    }

    fn power(&mut self, event: PowerEvent) {
        tracing::debug!(?event, "power request of the guest");
        match event {
            PowerEvent::PowerOff => self.end(self.after_guest.power_off, HaltReason::PowerOff),
            PowerEvent::Hibernate => self.halt(HaltReason::Hibernate),
            PowerEvent::GuestPanicked => self.end(self.after_guest.crash, HaltReason::GuestPanic),
            PowerEvent::Reset => self.end(self.after_guest.reset, HaltReason::Reset),
        }
    }

    /// The guest has ended.
    fn end(&mut self, after: AfterEnd, reason: HaltReason) {
        match after {
            AfterEnd::Halt => self.halt(reason),
            AfterEnd::Restart => {
                tracing::debug!(reason = reason.name(), "the machine starts again");
                // A reset that fails halts the machine with the error.
                drop(self.reset());
            }
        }
    }

    /// Halts the machine. What the guest relies on is durable before the event is emitted.
    fn halt(&mut self, reason: HaltReason) {
        if self.state == MachineState::Halted {
            return;
        }
        self.units.stop();
        self.state = MachineState::Halted;
        let reason = match self.guest.settle(Ending::Halted(&reason)) {
            Ok(()) => reason,
            Err(error) => HaltReason::Error(Chain(&*error).to_string()),
        };
        self.emit(LifecycleEvent::Halted(reason));
    }

    /// Ends the machine, whatever it is doing, and its threads.
    pub fn stop(&mut self) {
        if self.state != MachineState::Halted {
            self.units.stop();
            self.state = MachineState::Halted;
            if let Err(error) = self.guest.settle(Ending::Stopped) {
                tracing::error!("stopping the VM: {}", Chain(&*error));
            }
        }
        self.vps.tear_down();
    }

    /// The state of each unit, for people.
    pub fn inspect(&self) -> serde_json::Value {
        self.units.inspect()
    }

    fn emit(&self, event: LifecycleEvent) {
        (self.events)(Instant::now(), event);
    }
}

#[cfg(test)]
#[path = "lifecycle_test.rs"]
mod tests;
