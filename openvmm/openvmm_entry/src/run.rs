//! Runs a VM from its launch to the end of the process.

use crate::cli::ConsoleMode;
use crate::cli::Invocation;
use crate::cli::KeySource;
use crate::console;
use crate::console::ConsoleEnd;
use crate::console::GuestOutput;
use crate::control::PortInput;
use crate::control::VmControl;
use crate::events::EventLog;
use crate::exit::ExitCode;
use crate::terminal;
use error_chain::Chain;
use mesh::Receiver;
use mesh::Sender;
use openvmm_core::LaunchError;
use openvmm_core::LaunchOptions;
use openvmm_core::VmHandle;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::LifecycleEvent;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::request::VmRequest;
use pal_async::DefaultPool;
use pal_async::Driver;
use serde_json::json;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use virt::HostKind;
use virt::Hypervisor;
use virt_kvm::HeadStart;
use virt_kvm::KvmHypervisor;

/// What the main task waits for.
enum MainEvent {
    Vm(VmEvent),
    Console(io::Result<ConsoleEnd>),
    Signal(i32),
}

/// Why the VM ends.
enum EndCause {
    Halted(HaltReason),
    Quit,
    Signal(i32),
}

/// Launches the VM and runs until it ends.
pub(crate) fn run(invocation: &Invocation, head_start: Option<HeadStart>) -> ExitCode {
    let mut events = match EventLog::open(invocation.events.as_ref()) {
        Ok(events) => events,
        Err(error) => {
            eprintln!("error: --json-events: {error}");
            return ExitCode::CONFIG;
        }
    };
    let hypervisor = match head_start.map_or_else(KvmHypervisor::open, HeadStart::finish) {
        Ok(hypervisor) => hypervisor,
        Err(error) => {
            eprintln!("error: {}", Chain(&error));
            return ExitCode::HYPERVISOR;
        }
    };
    let vmgs_key = invocation.vmgs_key.as_ref().map(KeySource::read);
    let vmgs_key = match vmgs_key.transpose() {
        Ok(key) => key,
        Err(error) => {
            eprintln!("error: --vmgs-key: {error}");
            return ExitCode::CONFIG;
        }
    };
    let (send, mut main_events) = mesh::channel();
    let output = GuestOutput::new();
    let vm_events = send.clone();
    let options = LaunchOptions {
        console_output: Box::new(output.clone()),
        events: Arc::new(move |event| drop(vm_events.send(MainEvent::Vm(event)))),
        vmgs_key,
    };
    let vm = match openvmm_core::launch(&hypervisor, &invocation.vm, &invocation.start, options) {
        Ok(vm) => vm,
        Err(error) => {
            // The events before the failure.
            while let Ok(MainEvent::Vm(event)) = main_events.try_recv() {
                events.vm_event(&event);
            }
            eprintln!("error: {}", Chain(&error));
            if let LaunchError::Machine(error) = &error
                && error.is_refused_resume()
            {
                eprintln!("To override this, start with --hibernation-override HOW.");
            }
            return match &error {
                LaunchError::Machine(error) if error.is_hypervisor() => ExitCode::HYPERVISOR,
                LaunchError::Machine(error) if error.is_config() => ExitCode::CONFIG,
                LaunchError::Machine(_) | LaunchError::Thread(_) => ExitCode::FAILURE,
            };
        }
    };
    for (port, path) in &vm.ptys {
        eprintln!("{port} is at {}", path.display());
    }
    let running = RunningVm {
        vm,
        output,
        events,
        hypervisor,
    };
    DefaultPool::run_with(async |driver| {
        running
            .run(&driver, invocation.console, send, main_events)
            .await
    })
}

struct RunningVm {
    vm: VmHandle,
    output: GuestOutput,
    events: EventLog,
    hypervisor: KvmHypervisor,
}

impl RunningVm {
    async fn run(
        mut self,
        driver: &Driver,
        console: ConsoleMode,
        send: Sender<MainEvent>,
        main_events: Receiver<MainEvent>,
    ) -> ExitCode {
        if let Err(error) = watch_signals(send.clone()) {
            tracing::warn!(%error, "cannot handle signals; one would end the process without stopping the VM first");
        }
        if console == ConsoleMode::Interactive {
            let control = VmControl(self.vm.requests.clone());
            let input = self
                .vm
                .console
                .as_ref()
                .map(|port| Box::new(PortInput(port.clone())) as console::GuestInput);
            let output = self.output.clone();
            let work = move || {
                let ended = console::run(control, input, output);
                // Fails only when the main task has ended, and the process with it.
                let _ = send.send(MainEvent::Console(ended));
            };
            driver.unblock("console", work).detach();
        }

        let cause = self.wait(main_events).await;
        let exit = self.end(cause).await;
        // The console thread may be waiting for input; it ends with the process.
        terminal::restore();
        std::process::exit(exit.0)
    }

    async fn wait(&mut self, mut main_events: Receiver<MainEvent>) -> EndCause {
        loop {
            match main_events.recv().await {
                Ok(MainEvent::Vm(event)) => {
                    self.events.vm_event(&event);
                    if let VmEventKind::Lifecycle(LifecycleEvent::Halted(reason)) = event.kind {
                        return EndCause::Halted(reason);
                    }
                }
                Ok(MainEvent::Console(Ok(ConsoleEnd::Quit))) => return EndCause::Quit,
                Ok(MainEvent::Console(Ok(ConsoleEnd::InputClosed))) => {
                    tracing::debug!("standard input has ended");
                }
                Ok(MainEvent::Console(Err(error))) => {
                    terminal::restore();
                    tracing::warn!(%error, "the console failed; the VM keeps running without it");
                }
                Ok(MainEvent::Signal(number)) => return EndCause::Signal(number),
                Err(mesh::RecvError) => {
                    return EndCause::Halted(HaltReason::Error("the VM's worker has ended".into()));
                }
            }
        }
    }

    async fn end(&mut self, cause: EndCause) -> ExitCode {
        if let Err(error) = self.output.release() {
            tracing::debug!(%error, "cannot write to standard output");
        }
        // Fails only when the worker has ended, and the VM with it.
        let _ = self.vm.requests.call(VmRequest::Stop, ()).await;
        terminal::restore();
        match cause {
            EndCause::Halted(reason) => {
                self.explain(&reason);
                ExitCode::from(&reason)
            }
            EndCause::Quit => {
                self.events.ended(json!({"reason": "quit"}));
                ExitCode::QUIT
            }
            EndCause::Signal(number) => {
                self.events
                    .ended(json!({"reason": "signal", "signal": number}));
                ExitCode::signal(number)
            }
        }
    }

    /// Prints what the exit code alone does not tell.
    fn explain(&self, reason: &HaltReason) {
        match reason {
            HaltReason::PowerOff | HaltReason::Hibernate | HaltReason::Reset => {}
            HaltReason::GuestPanic => eprintln!("openvmm: the guest's kernel panicked"),
            HaltReason::TripleFault { vp, registers } => {
                eprintln!("openvmm: {vp} shut down (triple fault)");
                if let Some(registers) = registers {
                    eprintln!("{registers}");
                    if registers.at_reset_vector() {
                        eprintln!(
                            "These are the registers after a reset: KVM on AMD processors resets a VP that shut down, \
                             so its earlier registers are lost."
                        );
                    }
                }
            }
            HaltReason::Error(error) => eprintln!("openvmm: {error}"),
            HaltReason::Hypervisor(error) => {
                eprintln!("openvmm: {error}");
                // Queried only here: a start does not need it.
                let host = self.hypervisor.host_info();
                if host.is_ok_and(|host| host.kind == HostKind::Software) {
                    eprintln!(
                        "This host's KVM emulates guest kernels in software and lacks common instructions. \
                         `cargo xtask lab` runs guests on a machine with a complete one."
                    );
                }
            }
        }
    }
}

/// Stops the VM at the first signal, and ends the process at the second one.
fn watch_signals(send: Sender<MainEvent>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut asked = false;
            for number in &mut signals {
                if asked {
                    terminal::restore();
                    std::process::exit(ExitCode::signal(number).0);
                }
                asked = true;
                // Fails only when the main task has ended, and the process with it.
                let _ = send.send(MainEvent::Signal(number));
            }
        })?;
    Ok(())
}
