//! Runs a VM from its launch to the end of the process.

use crate::actions::GuestActions;
use crate::actions::OnHalt;
use crate::cli::ConsoleMode;
use crate::cli::Invocation;
use crate::cli::KeySource;
use crate::console;
use crate::console::ConsoleEnd;
use crate::console::GuestOutput;
use crate::control::PortInput;
use crate::control::SaveProgress;
use crate::control::VmControl;
use crate::control_socket::ControlPath;
use crate::control_socket::ControlSocket;
use crate::events::EventLog;
use crate::exit::ExitCode;
use crate::limits;
use crate::message::message;
use crate::pidfile::PidFile;
use crate::terminal;
use crate::terminal::signals::Ignored;
use error_chain::Chain;
use mesh::BoundedSender;
use mesh::Receiver;
use openvmm_core::LaunchError;
use openvmm_core::LaunchOptions;
use openvmm_core::VmHandle;
use openvmm_defs::event::HaltReason;
use openvmm_defs::event::LifecycleEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::request::VmRequest;
use pal_async::DefaultPool;
use pal_async::Driver;
use serde_json::json;
use signal_hook::consts::SIGCONT;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use virt::HostKind;
use virt::Hypervisor;
use virt_kvm::HeadStart;
use virt_kvm::KvmHypervisor;

/// What the main task waits for: few things happen more than once. One that finds no room comes after others that end
/// the VM too.
const MAX_MAIN_EVENTS: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// What the main task waits for.
enum MainEvent {
    Halted(HaltReason),
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
pub(crate) fn run(
    invocation: &Invocation,
    head_start: Option<HeadStart>,
    ignored: Ignored,
) -> ExitCode {
    limits::raise_open_files();
    let pidfile = match invocation.pidfile.as_deref().map(PidFile::create) {
        None => None,
        Some(Ok(pidfile)) => Some(pidfile),
        Some(Err(error)) => {
            message!("error: --pidfile: {error}");
            return ExitCode::CONFIG;
        }
    };
    let exit = start(invocation, head_start, ignored, pidfile.as_ref());
    if let Some(pidfile) = pidfile {
        pidfile.remove();
    }
    exit
}

fn start(
    invocation: &Invocation,
    head_start: Option<HeadStart>,
    ignored: Ignored,
    pidfile: Option<&PidFile>,
) -> ExitCode {
    let events = match EventLog::open(invocation.events.as_ref()) {
        Ok(events) => events,
        Err(error) => {
            message!("error: --json-events: {error}");
            return ExitCode::CONFIG;
        }
    };
    let hypervisor = match head_start.map_or_else(KvmHypervisor::open, HeadStart::finish) {
        Ok(hypervisor) => hypervisor,
        Err(error) => {
            message!("error: {}", Chain(&error));
            return ExitCode::HYPERVISOR;
        }
    };
    let vmgs_key = invocation.vmgs_key.as_ref().map(KeySource::read);
    let vmgs_key = match vmgs_key.transpose() {
        Ok(key) => key,
        Err(error) => {
            message!("error: --vmgs-key: {error}");
            return ExitCode::CONFIG;
        }
    };
    let control = match invocation.control.as_deref().map(ControlSocket::listen) {
        None => None,
        Some(Ok(socket)) => Some(socket),
        Some(Err(error)) => {
            message!("error: --control: cannot listen: {error}");
            return ExitCode::CONFIG;
        }
    };
    let (send, main_events) = mesh::bounded(MAX_MAIN_EVENTS);
    let launched = Arc::new(AtomicBool::new(false));
    let signals = SignalWatch {
        ignored,
        launched: launched.clone(),
        pidfile: pidfile.cloned(),
        send: send.clone(),
    };
    if let Err(error) = signals.start() {
        tracing::warn!(%error, "cannot handle signals; one would end the process without stopping the VM first");
    }
    let output = GuestOutput::new();
    let progress = SaveProgress::default();
    let options = LaunchOptions {
        console_output: Box::new(output.clone()),
        events: {
            let (events, send, progress) = (events.clone(), send.clone(), progress.clone());
            Arc::new(move |event| {
                events.vm_event(&event);
                if let VmEventKind::SnapshotProgress { done, total } = event.kind {
                    progress.set(done, total);
                }
                if let VmEventKind::Lifecycle(LifecycleEvent::Halted(reason)) = event.kind {
                    let _ = send.try_send(MainEvent::Halted(reason));
                }
            })
        },
        vmgs_key,
    };
    let vm = match openvmm_core::launch(&hypervisor, &invocation.vm, &invocation.start, options) {
        Ok(vm) => vm,
        Err(error) => {
            // The events before the failure.
            events.flush();
            return explain_failed_launch(&error);
        }
    };
    launched.store(true, Ordering::SeqCst);
    for (port, path) in &vm.ptys {
        message!("{port} is at {}", path.display());
    }
    for (port, address) in &vm.listeners {
        message!("{port} listens on {address}");
    }
    let control = control.map(|socket| {
        let send = send.clone();
        // Without room, or without the main task, the VM ends anyway.
        let quit = move || drop(send.try_send(MainEvent::Console(Ok(ConsoleEnd::Quit))));
        socket.serve(
            VmControl::new(vm.requests.clone(), progress.clone()),
            Arc::new(quit),
        )
    });
    let control = match control.transpose() {
        Ok(control) => control,
        Err(error) => {
            tracing::warn!(%error, "the control socket has no thread");
            None
        }
    };
    let running = RunningVm {
        vm,
        output,
        events,
        hypervisor,
        actions: invocation.actions,
        pidfile: pidfile.cloned(),
        control,
        progress,
    };
    DefaultPool::run_with(async |driver| {
        running
            .run(&driver, invocation.console, send, main_events)
            .await
    })
}

fn explain_failed_launch(error: &LaunchError) -> ExitCode {
    message!("error: {}", Chain(error));
    if let LaunchError::Machine(error) = error
        && error.is_refused_resume()
    {
        message!("To override this, start with --hibernation-override HOW.");
    }
    match error {
        LaunchError::Machine(error) if error.is_hypervisor() => ExitCode::HYPERVISOR,
        _ if limits::is_host_limit(error) => ExitCode::FAILURE,
        LaunchError::Machine(error) if error.is_config() => ExitCode::CONFIG,
        LaunchError::Machine(_) | LaunchError::Thread(_) => ExitCode::FAILURE,
    }
}

struct RunningVm {
    vm: VmHandle,
    output: GuestOutput,
    events: EventLog,
    hypervisor: KvmHypervisor,
    actions: GuestActions,
    pidfile: Option<PidFile>,
    control: Option<ControlPath>,
    progress: SaveProgress,
}

impl RunningVm {
    async fn run(
        mut self,
        driver: &Driver,
        console: ConsoleMode,
        send: BoundedSender<MainEvent>,
        main_events: Receiver<MainEvent>,
    ) -> ExitCode {
        if console == ConsoleMode::Interactive {
            let control = VmControl::new(self.vm.requests.clone(), self.progress.clone());
            let input = self
                .vm
                .console
                .as_ref()
                .map(|port| Box::new(PortInput(port.clone())) as console::GuestInput);
            let output = self.output.clone();
            let work = move || {
                let ended = console::run(control, input, output);
                // Fails only when the main task has ended, and the process with it.
                let _ = send.send_blocking(MainEvent::Console(ended));
            };
            driver.unblock("console", work).detach();
        }

        let cause = self.wait(main_events).await;
        let exit = self.end(cause).await;
        // The console thread may be waiting for input; it ends with the process.
        if let Some(pidfile) = &self.pidfile {
            pidfile.remove();
        }
        if let Some(control) = &self.control {
            control.remove();
        }
        terminal::restore();
        std::process::exit(exit.0)
    }

    async fn wait(&mut self, mut main_events: Receiver<MainEvent>) -> EndCause {
        loop {
            match main_events.recv().await {
                Ok(MainEvent::Halted(reason)) => match self.actions.on_halt(&reason) {
                    OnHalt::Exit(_) => return EndCause::Halted(reason),
                    OnHalt::Stay => {
                        self.explain(&reason);
                        message!(
                            "openvmm: the VM has halted ({}); `quit` at the prompt or a signal ends it",
                            reason.name()
                        );
                    }
                },
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
        let exit = match cause {
            EndCause::Halted(reason) => {
                self.explain(&reason);
                match self.actions.on_halt(&reason) {
                    OnHalt::Exit(exit) => exit,
                    OnHalt::Stay => ExitCode::from(&reason),
                }
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
        };
        self.events.flush();
        exit
    }

    /// Prints what the exit code alone does not tell.
    fn explain(&self, reason: &HaltReason) {
        match reason {
            HaltReason::PowerOff | HaltReason::Hibernate | HaltReason::Reset => {}
            HaltReason::GuestPanic => message!("openvmm: the guest's kernel panicked"),
            HaltReason::TripleFault { vp, registers } => {
                message!("openvmm: {vp} shut down (triple fault)");
                if let Some(registers) = registers {
                    message!("{registers}");
                    if registers.at_reset_vector() {
                        message!(
                            "These are the registers after a reset: KVM on AMD processors resets a VP that shut down, \
                             so its earlier registers are lost."
                        );
                    }
                }
            }
            HaltReason::Error(error) => message!("openvmm: {error}"),
            HaltReason::Hypervisor(error) => {
                message!("openvmm: {error}");
                // Queried only here: a start does not need it.
                let host = self.hypervisor.host_info();
                if host.is_ok_and(|host| host.kind == HostKind::Software) {
                    message!(
                        "This host's KVM emulates guest kernels in software and lacks common instructions. \
                         `cargo xtask lab` runs guests on a machine with a complete one."
                    );
                }
            }
        }
    }
}

/// Stops the VM at the first signal, and ends the process at the second one, or while there is no VM yet.
struct SignalWatch {
    ignored: Ignored,
    launched: Arc<AtomicBool>,
    pidfile: Option<PidFile>,
    send: BoundedSender<MainEvent>,
}

impl SignalWatch {
    /// Starts the thread that takes the signals. Those that were ignored at the start of the process stay ignored.
    fn start(self) -> io::Result<()> {
        let ends = [SIGTERM, SIGINT, SIGHUP].into_iter();
        let taken = ends.filter(|signal| !self.ignored.has(*signal));
        let mut signals = Signals::new(taken.chain([SIGCONT]))?;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut asked = false;
                for number in &mut signals {
                    if number == SIGCONT {
                        terminal::continued();
                        continue;
                    }
                    if asked || !self.launched.load(Ordering::SeqCst) {
                        if let Some(pidfile) = &self.pidfile {
                            pidfile.remove();
                        }
                        terminal::restore();
                        std::process::exit(ExitCode::signal(number).0);
                    }
                    asked = true;
                    // Without room, or without the main task, the VM ends anyway.
                    let _ = self.send.try_send(MainEvent::Signal(number));
                }
            })?;
        Ok(())
    }
}
