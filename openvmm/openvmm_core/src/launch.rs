//! From a configuration to a running worker.

use crate::handle::VmHandle;
use crate::machine;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::MachineOptions;
use crate::machine::PciError;
use crate::worker::EventSink;
use crate::worker::Message;
use crate::worker::OnReset;
use crate::worker::Worker;
use guest_memory::MemoryLayout;
use guest_memory::MemoryLayoutError;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::PciDevice;
use openvmm_defs::config::VmConfig;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use virt::Hypervisor;

/// Whether a new VM runs at once.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum InitialState {
    /// The guest's first instruction is on its way when the VM is there.
    Running,
    /// The VM runs when it is resumed.
    Paused,
}

/// What a VM is launched with, besides its configuration.
pub struct LaunchOptions {
    /// Takes the output of the serial port that is the console.
    pub console_output: Box<dyn Write + Send>,
    /// Whether it runs at once.
    pub initial_state: InitialState,
    /// What a guest's reset does.
    pub on_reset: OnReset,
    /// Takes the VM's events.
    pub events: EventSink,
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

/// Builds the machine, lets it run if it is to, and starts its worker.
pub fn launch(
    hypervisor: &dyn Hypervisor,
    config: &VmConfig,
    options: LaunchOptions,
) -> Result<VmHandle, LaunchError> {
    let (messages, incoming) = mesh::channel();
    let (power, vps, sleep) = (messages.clone(), messages.clone(), messages.clone());
    let events = options.events.clone();
    let machine = Machine::new(
        hypervisor,
        config,
        MachineOptions {
            console_output: options.console_output,
            // When the worker is gone the VM is being torn down, and nobody needs to know.
            on_power: Box::new(move |event| drop(power.send(Message::Power(event)))),
            on_sleep: Box::new(move |said| drop(sleep.send(Message::Sleep(said)))),
            on_hibernation: Arc::new(move |event| {
                events(VmEvent {
                    at: Instant::now(),
                    kind: VmEventKind::Hibernation(event),
                });
            }),
            on_vp: Box::new(move |report| drop(vps.send(Message::Vp(report)))),
        },
    )?;
    let handle = VmHandle {
        messages,
        console: machine.console().cloned(),
        ptys: machine.ptys().to_vec(),
    };
    (options.events)(VmEvent {
        at: Instant::now(),
        kind: VmEventKind::Created,
    });
    let mut worker = Worker::new(machine, options.on_reset, options.events);
    if options.initial_state == InitialState::Running {
        // Before there is a worker to ask: all of what follows happens while the guest boots.
        worker.let_run()?;
    }
    std::thread::Builder::new()
        .name("vm-worker".into())
        .spawn(move || worker.run(incoming))
        .map_err(LaunchError::Thread)?;
    Ok(handle)
}

/// Whether guest RAM can be laid out as configured. The processor's address width is known only later.
pub fn check_memory(memory: &MemoryConfig) -> Result<(), MemoryLayoutError> {
    const WIDEST: u8 = 52;
    MemoryLayout::new(memory.size, machine::LOW_RAM_END, WIDEST).map(drop)
}

/// Whether there is a place for each PCI device.
pub fn check_pci(devices: &[PciDevice]) -> Result<(), PciError> {
    machine::assign_pci(devices).map(drop)
}
