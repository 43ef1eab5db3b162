//! A VM from its launch to the process's end.

use crate::cli::Console;
use crate::cli::Invocation;
use crate::console;
use crate::console::Ended;
use crate::console::GuestOutput;
use crate::control::PortInput;
use crate::control::VmControl;
use crate::events::EventLog;
use crate::exit::Exit;
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
use serde_json::Map;
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
enum Occurrence {
    Vm(VmEvent),
    Console(io::Result<Ended>),
    Signal(i32),
}

/// Why the VM ends.
enum Cause {
    Halted(HaltReason),
    Quit,
    Signal(i32),
}

/// Whether the command line, not parsed yet, looks like one that starts a VM.
pub(crate) fn is_likely() -> bool {
    std::env::args_os().skip(1).any(|argument| {
        let argument = argument.to_string_lossy();
        argument.starts_with("--kernel") || argument.starts_with("--uefi")
    })
}

/// Launches the VM and stays until it ends.
pub(crate) fn run(invocation: &Invocation, head_start: Option<HeadStart>) -> Exit {
    let mut events = match EventLog::open(invocation.events.as_ref()) {
        Ok(events) => events,
        Err(error) => {
            eprintln!("error: --json-events: {error}");
            return Exit::Config;
        }
    };
    let hypervisor = match head_start.map_or_else(KvmHypervisor::open, HeadStart::finish) {
        Ok(hypervisor) => hypervisor,
        Err(error) => {
            eprintln!("error: {}", Chain(&error));
            return Exit::Hypervisor;
        }
    };
    let (send, mut occurrences) = mesh::channel();
    let output = GuestOutput::new();
    let vm_events = send.clone();
    let options = LaunchOptions {
        console_output: Box::new(output.clone()),
        events: Arc::new(move |event| drop(vm_events.send(Occurrence::Vm(event)))),
    };
    let vm = match openvmm_core::launch(&hypervisor, &invocation.vm, &invocation.start, options) {
        Ok(vm) => vm,
        Err(error) => {
            // What led to it.
            while let Ok(Occurrence::Vm(event)) = occurrences.try_recv() {
                events.vm_event(&event);
            }
            eprintln!("error: {}", Chain(&error));
            if let LaunchError::Machine(error) = &error
                && error.is_refused_resume()
            {
                eprintln!("An override is given as --hibernation-override HOW.");
            }
            return match &error {
                LaunchError::Machine(error) if error.is_hypervisor() => Exit::Hypervisor,
                LaunchError::Machine(error) if error.is_config() => Exit::Config,
                LaunchError::Machine(_) | LaunchError::Thread(_) => Exit::Failure,
            };
        }
    };
    for (port, path) in vm.ptys() {
        eprintln!("{port} is at {}", path.display());
    }
    let session = Session {
        vm,
        output,
        events,
        hypervisor,
    };
    DefaultPool::run_with(async |driver| {
        session
            .run(&driver, invocation.console, send, occurrences)
            .await
    })
}

struct Session {
    vm: VmHandle,
    output: GuestOutput,
    events: EventLog,
    hypervisor: KvmHypervisor,
}

impl Session {
    async fn run(
        mut self,
        driver: &Driver,
        console: Console,
        send: Sender<Occurrence>,
        occurrences: Receiver<Occurrence>,
    ) -> Exit {
        if let Err(error) = watch_signals(send.clone()) {
            tracing::warn!(%error, "signals will end the process without stopping the VM in order");
        }
        if console == Console::Interactive {
            let control = VmControl(self.vm.clone());
            let input = self
                .vm
                .console()
                .map(|port| Box::new(PortInput(port.clone())) as Box<dyn console::GuestInput>);
            let output = self.output.clone();
            let work = move || {
                let ended = console::run(control, input, output);
                // Without a main task there is no process to tell.
                let _ = send.send(Occurrence::Console(ended));
            };
            driver.unblock("console", work).detach();
        }

        let cause = self.wait(occurrences).await;
        let exit = self.end(cause).await;
        // The console may be waiting for a key; it ends with the process.
        terminal::restore();
        std::process::exit(exit.code())
    }

    async fn wait(&mut self, mut occurrences: Receiver<Occurrence>) -> Cause {
        loop {
            match occurrences.recv().await {
                Ok(Occurrence::Vm(event)) => {
                    self.events.vm_event(&event);
                    if let VmEventKind::Lifecycle(LifecycleEvent::Halted(reason)) = event.kind {
                        return Cause::Halted(reason);
                    }
                }
                Ok(Occurrence::Console(Ok(Ended::Quit))) => return Cause::Quit,
                Ok(Occurrence::Console(Ok(Ended::InputClosed))) => {
                    tracing::debug!("standard input has ended");
                }
                Ok(Occurrence::Console(Err(error))) => {
                    terminal::restore();
                    tracing::warn!(%error, "the console has failed; the VM goes on without");
                }
                Ok(Occurrence::Signal(number)) => return Cause::Signal(number),
                Err(mesh::RecvError) => {
                    return Cause::Halted(HaltReason::Error("the VM's worker is gone".into()));
                }
            }
        }
    }

    async fn end(&mut self, cause: Cause) -> Exit {
        if let Err(error) = self.output.release() {
            tracing::debug!(%error, "standard output is gone");
        }
        // An error means that the worker is gone, and the VM with it.
        let _ = self.vm.call(VmRequest::Stop, ()).await;
        terminal::restore();
        match cause {
            Cause::Halted(reason) => {
                self.explain(&reason);
                Exit::from(&reason)
            }
            Cause::Quit => {
                self.events.ended("quit", Map::new());
                Exit::Quit
            }
            Cause::Signal(number) => {
                let mut fields = Map::new();
                fields.insert("signal".into(), json!(number));
                self.events.ended("signal", fields);
                Exit::Signal(number)
            }
        }
    }

    /// Tells the user what an exit code alone does not.
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
                             and what it had before is lost."
                        );
                    }
                }
            }
            HaltReason::Error(error) => eprintln!("openvmm: {error}"),
            HaltReason::Hypervisor(error) => {
                eprintln!("openvmm: {error}");
                // Asked for here, not at the start, where nobody needs it.
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

/// The first signal ends the VM in order, the second one ends the process.
fn watch_signals(send: Sender<Occurrence>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut asked = false;
            for number in &mut signals {
                if asked {
                    terminal::restore();
                    std::process::exit(Exit::Signal(number).code());
                }
                asked = true;
                // Without a main task there is no process to tell.
                let _ = send.send(Occurrence::Signal(number));
            }
        })?;
    Ok(())
}
