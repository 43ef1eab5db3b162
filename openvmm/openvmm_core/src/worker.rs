//! The worker: one thread that owns the machine, and answers requests and what the guest does.

use crate::machine::Machine;
use crate::machine::MachineError;
use chipset_device::PowerEvent;
use error_chain::Chain;
use machine_parts::VpReport;
use mesh::Receiver;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::request::Change;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::VmRequest;
use serde_json::Value;
use serde_json::json;
use sleep_port::SleepAnnouncement;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// Takes a VM's events, on whichever thread they happen. Must not wait for the worker.
pub type EventSink = Arc<dyn Fn(VmEvent) + Send + Sync>;

/// What a guest's reset does.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum OnReset {
    /// The VM starts anew.
    Restart,
    /// The VM halts.
    Halt,
}

/// What reaches the worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// A front end asks for something.
    Request(VmRequest),
    /// The guest asks its power supply for something. The VPs' gate is closed.
    Power(PowerEvent),
    /// The guest goes to sleep, or woke.
    Sleep(SleepAnnouncement),
    /// A VP's thread has something to say.
    Vp(VpReport),
}

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Halted,
}

pub(crate) struct Worker {
    machine: Machine,
    state: State,
    started: bool,
    on_reset: OnReset,
    events: EventSink,
}

impl Worker {
    pub(crate) fn new(machine: Machine, on_reset: OnReset, events: EventSink) -> Self {
        Self {
            machine,
            state: State::Paused,
            started: false,
            on_reset,
            events,
        }
    }

    /// Lets the paused machine run, for the first time or again.
    pub(crate) fn let_run(&mut self) -> Result<(), MachineError> {
        let event = match std::mem::replace(&mut self.started, true) {
            true => VmEventKind::Resumed,
            false => VmEventKind::Started,
        };
        // Before the VPs run, so that it precedes what they cause.
        self.emit(event);
        self.start()
    }

    /// Serves until a front end stops the VM for good, or all of them are gone.
    pub(crate) fn run(mut self, mut messages: Receiver<Message>) {
        while let Ok(message) = messages.recv_blocking() {
            let flow = match message {
                Message::Request(request) => self.request(request),
                Message::Power(event) => {
                    self.power(event);
                    ControlFlow::Continue(())
                }
                Message::Sleep(announcement) => {
                    if let Some(preserved) = self.machine.preserved() {
                        preserved.announced(announcement);
                    }
                    ControlFlow::Continue(())
                }
                Message::Vp(report) => {
                    self.report(report);
                    ControlFlow::Continue(())
                }
            };
            if flow.is_break() {
                return;
            }
        }
        self.machine.tear_down();
    }

    fn request(&mut self, request: VmRequest) -> ControlFlow<()> {
        match request {
            VmRequest::Pause(rpc) => rpc.handle_sync(|()| self.pause()),
            VmRequest::Resume(rpc) => rpc.handle_sync(|()| self.resume()),
            VmRequest::Reset(rpc) => rpc.handle_sync(|()| self.reset_requested()),
            VmRequest::PowerButton(rpc) => rpc.handle_sync(|()| self.power_button()),
            VmRequest::Inspect(rpc) => rpc.handle_sync(|()| self.inspect().into()),
            VmRequest::Stop(rpc) => {
                rpc.handle_sync(|()| {
                    self.stop();
                    self.machine.tear_down();
                });
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn pause(&mut self) -> Result<Change, RequestError> {
        match self.state {
            State::Halted => Err(RequestError::Halted),
            State::Paused => Ok(Change::Unchanged),
            State::Running => {
                self.machine.stop();
                self.state = State::Paused;
                self.emit(VmEventKind::Paused);
                Ok(Change::Changed)
            }
        }
    }

    fn resume(&mut self) -> Result<Change, RequestError> {
        match self.state {
            State::Halted => Err(RequestError::Halted),
            State::Running => Ok(Change::Unchanged),
            State::Paused => {
                self.let_run()
                    .map_err(|error| RequestError::Failed(start_failed(&error).into()))?;
                Ok(Change::Changed)
            }
        }
    }

    fn reset_requested(&mut self) -> Result<(), RequestError> {
        if self.state == State::Halted {
            return Err(RequestError::Halted);
        }
        self.reset()
            .map_err(|error| RequestError::Failed(error.into()))
    }

    fn power_button(&mut self) -> Result<(), RequestError> {
        match self.state {
            State::Halted => Err(RequestError::Halted),
            State::Paused => Err(RequestError::Paused),
            State::Running => {
                self.machine.press_power_button();
                self.emit(VmEventKind::PowerButton);
                Ok(())
            }
        }
    }

    fn inspect(&mut self) -> Value {
        let state = match self.state {
            State::Running => "running",
            State::Paused => "paused",
            State::Halted => "halted",
        };
        let mut tree = json!({"vm": {"state": state}});
        if let (Value::Object(tree), Value::Object(machine)) = (&mut tree, self.machine.inspect()) {
            tree.extend(machine);
        }
        tree
    }

    fn power(&mut self, event: PowerEvent) {
        tracing::debug!(?event, "the guest's power request");
        match event {
            PowerEvent::PowerOff => self.halt(HaltReason::PowerOff),
            PowerEvent::Hibernate => self.halt(HaltReason::Hibernate),
            PowerEvent::GuestPanicked => self.halt(HaltReason::GuestPanic),
            PowerEvent::Reset => match self.on_reset {
                OnReset::Halt => self.halt(HaltReason::Reset),
                OnReset::Restart => {
                    if let Err(error) = self.reset() {
                        self.halt(HaltReason::Error(error));
                    }
                }
            },
        }
    }

    fn report(&mut self, report: VpReport) {
        match report {
            VpReport::FirstInstruction(at) => (self.events)(VmEvent {
                at,
                kind: VmEventKind::FirstInstruction,
            }),
            VpReport::TripleFault { vp, registers } => {
                self.halt(HaltReason::TripleFault { vp, registers });
            }
            VpReport::Failed { error, registers } => {
                if let Some(registers) = registers {
                    tracing::error!("registers at the failure:\n{registers}");
                }
                self.halt(HaltReason::Hypervisor(Chain(&error).to_string()));
            }
        }
    }

    fn reset(&mut self) -> Result<(), String> {
        let running = self.state == State::Running;
        self.stop();
        self.machine.reset().map_err(|error| {
            self.state = State::Halted;
            format!("resetting the VM failed: {}", Chain(&error))
        })?;
        self.emit(VmEventKind::Reset);
        match running {
            true => self.start().map_err(|error| start_failed(&error)),
            false => Ok(()),
        }
    }

    fn start(&mut self) -> Result<(), MachineError> {
        self.machine
            .start()
            .inspect_err(|_| self.state = State::Halted)?;
        self.state = State::Running;
        Ok(())
    }

    fn stop(&mut self) {
        if self.state == State::Running {
            self.machine.stop();
        }
    }

    fn halt(&mut self, reason: HaltReason) {
        if self.state == State::Halted {
            return;
        }
        self.stop();
        self.state = State::Halted;
        self.machine.flush();
        let reason = self.settle_hibernation(reason);
        self.emit(VmEventKind::Halted(reason));
    }

    /// Makes what the guest did to its power durable before anybody is told. Everything has stopped.
    fn settle_hibernation(&mut self, reason: HaltReason) -> HaltReason {
        let Some(preserved) = self.machine.preserved() else {
            return reason;
        };
        match reason {
            HaltReason::PowerOff => preserved.powered_off(),
            // With the VM, the reset ends what it would restart.
            HaltReason::Reset => preserved.reset(),
            HaltReason::Hibernate => {
                if let Err(error) = preserved.hibernated() {
                    return HaltReason::Error(Chain(&error).to_string());
                }
            }
            HaltReason::GuestPanic
            | HaltReason::TripleFault { .. }
            | HaltReason::Hypervisor(_)
            | HaltReason::Error(_) => preserved.crashed(),
        }
        reason
    }

    fn emit(&self, kind: VmEventKind) {
        (self.events)(VmEvent {
            at: Instant::now(),
            kind,
        });
    }
}

fn start_failed(error: &MachineError) -> String {
    format!("starting the VM failed: {}", Chain(error))
}
