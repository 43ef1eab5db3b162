//! From a configuration to a running worker.

use crate::handle::VmHandle;
use crate::machine;
use crate::machine::HibernationSink;
use crate::machine::HostEnds;
use crate::machine::MachineError;
use crate::machine::MachinePlan;
use crate::worker::VmEventSink;
use crate::worker::Worker;
use machine_parts::RunControl;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::VmConfig;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::start::InitialState;
use openvmm_defs::start::StartOptions;
use std::io;
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;
use virt::Hypervisor;
use virt::MAX_PROCESSORS;
use vmgs::Key;

/// Reports that the worker has not seen yet: at most two of each VP and a power request for each of two runs.
const MAX_REPORTS: NonZeroUsize = NonZeroUsize::new(2 * (2 * MAX_PROCESSORS as usize + 1)).unwrap();

/// The host's ends of a VM.
pub struct LaunchOptions {
    /// Takes the output of the serial port that is the console.
    pub console_output: Box<dyn Write + Send>,
    /// Takes the VM's events.
    pub events: VmEventSink,
    /// The key of an encrypted VMGS store; with it, a new store is encrypted.
    pub vmgs_key: Option<Key>,
}

/// Why a VM could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The machine could not be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The host gives no thread.
    #[error("failed to start the VM's worker thread")]
    Thread(#[source] io::Error),
}

/// Plans and builds the machine, starts it if `start` says so, and starts its worker.
pub fn launch(
    hypervisor: &dyn Hypervisor,
    config: &VmConfig,
    start: &StartOptions,
    options: LaunchOptions,
) -> Result<VmHandle, LaunchError> {
    let LaunchOptions {
        console_output,
        events,
        vmgs_key,
    } = options;
    let sink = events.clone();
    let on_hibernation: HibernationSink = Arc::new(move |event| {
        sink(VmEvent {
            at: Instant::now(),
            kind: VmEventKind::Hibernation(event),
        });
    });
    let plan = MachinePlan::new(hypervisor, config, &start.start, vmgs_key, &on_hibernation)?;
    let host = plan.host.kind;
    let (report, reports) = mesh::bounded(MAX_REPORTS);
    let sink = events.clone();
    let ends = HostEnds {
        console_output,
        control: RunControl::new(move |message| {
            if let Err(error) = report.try_send(message) {
                // A worker that is gone has torn the machine down.
                tracing::debug!(%error, "a report of the machine has no receiver");
            }
        }),
        events: Box::new(move |at, event| {
            sink(VmEvent {
                at,
                kind: VmEventKind::Lifecycle(event),
            });
        }),
        after_guest: start.after_guest,
    };
    let mut machine = plan.build(hypervisor, config, &start.start, ends)?;
    let (requests, incoming) = mesh::channel();
    let serial = &machine.lifecycle.guest().serial;
    let handle = VmHandle {
        requests,
        console: serial.console(),
        ptys: serial.ptys(),
        listeners: serial.listeners(),
    };
    events(VmEvent {
        at: Instant::now(),
        kind: VmEventKind::Created,
    });
    if start.initial_state == InitialState::Running {
        // Start VPs before spawning the worker: what follows happens while the guest boots.
        machine.lifecycle.resume().map_err(MachineError::from)?;
    }
    let mut worker = Worker {
        machine,
        config: config.clone(),
        host,
        events,
    };
    std::thread::Builder::new()
        .name("vm-worker".into())
        .spawn(move || {
            worker.machine.started();
            pal_async::block_on(worker.run(incoming, reports));
        })
        .map_err(LaunchError::Thread)?;
    Ok(handle)
}

/// Whether guest RAM can have its size and pages, for what the VM boots. The processor's address width is known only later.
pub fn check_memory(memory: &MemoryConfig, load_mode: &LoadMode) -> Result<(), MachineError> {
    const WIDEST: u8 = 52;
    machine::check_memory(memory, load_mode, WIDEST)
}

#[cfg(test)]
#[path = "launch_test.rs"]
mod tests;
