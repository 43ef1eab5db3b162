//! The worker: one thread that owns the machine, answers requests and acts on what the guest does.

use crate::machine::Machine;
use crate::machine::SaveSnapshotError;
use crate::machine::SnapshotRequest;
use error_chain::Chain;
use futures::FutureExt as _;
use machine_parts::LifecycleError;
use machine_parts::MachineState;
use machine_parts::Report;
use mesh::Receiver;
use openvmm_defs::config::VmConfig;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::SaveSnapshot;
use openvmm_defs::request::SavedSnapshot;
use openvmm_defs::request::VmRequest;
use serde_json::Value;
use serde_json::json;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use virt::HostKind;

/// Takes a VM's events, on whichever thread they happen. Must not wait for the worker.
pub type VmEventSink = Arc<dyn Fn(VmEvent) + Send + Sync>;

pub(crate) struct Worker {
    pub machine: Machine,
    pub config: VmConfig,
    /// How the host virtualizes.
    pub host: HostKind,
    pub events: VmEventSink,
}

impl Worker {
    /// Serves until a front end stops the VM, or no front end has a handle of it any more.
    pub(crate) async fn run(
        mut self,
        mut requests: Receiver<VmRequest>,
        mut reports: Receiver<Report>,
    ) {
        loop {
            // Reports come first: a request is carried out on a machine that is known to run.
            futures::select_biased! {
                report = reports.recv().fuse() => {
                    if let Ok(report) = report {
                        self.machine.lifecycle.report(report);
                    }
                }
                request = requests.recv().fuse() => {
                    let flow = match request {
                        Ok(request) => self.request(request),
                        Err(mesh::RecvError) => ControlFlow::Break(()),
                    };
                    if flow.is_break() {
                        break;
                    }
                }
            }
        }
        self.machine.stop();
    }

    fn request(&mut self, request: VmRequest) -> ControlFlow<()> {
        let lifecycle = &mut self.machine.lifecycle;
        match request {
            VmRequest::Pause(rpc) => rpc.handle_sync(|()| lifecycle.pause().map_err(refused)),
            VmRequest::Resume(rpc) => rpc.handle_sync(|()| lifecycle.resume().map_err(refused)),
            VmRequest::Reset(rpc) => rpc.handle_sync(|()| lifecycle.reset().map_err(refused)),
            VmRequest::PowerButton(rpc) => rpc.handle_sync(|()| self.power_button()),
            VmRequest::Inspect(rpc) => rpc.handle_sync(|()| self.inspect().into()),
            VmRequest::SaveSnapshot(rpc) => rpc.handle_sync(|request| self.save_snapshot(request)),
            VmRequest::Stop(rpc) => {
                rpc.handle_sync(|()| self.machine.stop());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn power_button(&mut self) -> Result<(), RequestError> {
        match self.machine.lifecycle.state() {
            MachineState::Halted => Err(RequestError::Halted),
            MachineState::Paused => Err(RequestError::Paused),
            MachineState::Running => {
                self.machine.pm.press_power_button();
                (self.events)(VmEvent {
                    at: Instant::now(),
                    kind: VmEventKind::PowerButton,
                });
                Ok(())
            }
        }
    }

    fn save_snapshot(&mut self, request: SaveSnapshot) -> Result<SavedSnapshot, RequestError> {
        let SaveSnapshot { dir } = request;
        let emit = |kind| {
            (self.events)(VmEvent {
                at: Instant::now(),
                kind,
            });
        };
        let saved = self.machine.save_snapshot(SnapshotRequest {
            dir: &dir,
            config: &self.config,
            host: self.host,
            progress: &mut |done, total| emit(VmEventKind::SnapshotProgress { done, total }),
        });
        match saved {
            Ok(saved) => {
                emit(VmEventKind::SnapshotSaved { dir, saved });
                Ok(saved)
            }
            Err(SaveSnapshotError::Halted) => Err(RequestError::Halted),
            Err(error) => Err(RequestError::Failed(Chain(&error).to_string().into())),
        }
    }

    fn inspect(&mut self) -> Value {
        let state = match self.machine.lifecycle.state() {
            MachineState::Running => "running",
            MachineState::Paused => "paused",
            MachineState::Halted => "halted",
        };
        let mut tree = json!({"vm": {"state": state}});
        if let (Value::Object(tree), Value::Object(machine)) = (&mut tree, self.machine.inspect()) {
            tree.extend(machine);
        }
        tree
    }
}

fn refused<E: Error>(error: LifecycleError<E>) -> RequestError {
    match error {
        LifecycleError::Halted => RequestError::Halted,
        error => RequestError::Failed(Chain(&error).to_string().into()),
    }
}
