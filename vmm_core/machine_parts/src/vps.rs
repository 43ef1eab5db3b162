//! The VPs' threads.
//!
//! Each VP has a thread that owns it. A thread runs the guest while the gate is open, and otherwise waits
//! for commands; everything else that touches a VP is a command, carried out on its thread.

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use virt::IoBus;
use virt::RunError;
use virt::Vp;
use virt::VpBinder;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt::x86::Registers;

#[cfg(test)]
#[path = "vps_test.rs"]
mod tests;

/// Whether VPs may be in the guest. Closing it is how the guest is stopped, from any thread.
#[derive(Clone, Default)]
pub struct VpGate(Arc<Gate>);

#[derive(Default)]
struct Gate {
    /// Whether the machine runs.
    open: AtomicBool,
    /// Whether VPs are kept out for a moment, to be looked at.
    interrupted: AtomicBool,
    kickers: OnceLock<Vec<Arc<dyn VpKick>>>,
}

impl VpGate {
    /// Makes every VP leave the guest, and stay out, before it executes another instruction.
    ///
    /// A VP that is just handling an exit (the caller, perhaps) does not go back in. Does not wait.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::SeqCst);
        self.kick();
    }

    fn kick(&self) {
        for kicker in self.0.kickers.get().into_iter().flatten() {
            kicker.kick();
        }
    }

    fn open(&self) {
        self.0.open.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::SeqCst) && !self.0.interrupted.load(Ordering::SeqCst)
    }

    /// Keeps VPs out without closing the gate: if it is closed meanwhile, it stays closed.
    fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::SeqCst);
        self.kick();
    }

    fn end_interruption(&self) {
        self.0.interrupted.store(false, Ordering::SeqCst);
    }
}

/// What a VP's thread reports of its own accord. The gate is closed by then.
#[derive(Debug)]
pub enum VpReport {
    /// The boot processor enters the guest for the first time.
    FirstInstruction(Instant),
    /// The VP shut down.
    TripleFault {
        /// Which VP.
        vp: VpIndex,
        /// Its registers, where they can be read.
        registers: Option<Box<Registers>>,
    },
    /// The VP cannot go on.
    Failed {
        /// Why.
        error: RunError,
        /// Its registers, where they can be read.
        registers: Option<Box<Registers>>,
    },
}

/// Why the VPs' threads could not be had.
#[derive(Debug, thiserror::Error)]
pub enum VpError {
    /// The host gives no thread.
    #[error("failed to start the thread of {vp}")]
    Thread {
        /// Which VP.
        vp: VpIndex,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The hypervisor does not take the thread.
    #[error("failed to bind {vp} to its thread")]
    Bind {
        /// Which VP.
        vp: VpIndex,
        /// What the hypervisor said.
        #[source]
        source: virt::Error,
    },
    /// A VP's thread has died.
    #[error("the thread of {0} is gone")]
    Gone(VpIndex),
}

type Report = Arc<dyn Fn(VpReport) + Send + Sync>;

type Call = Box<dyn FnOnce(&mut dyn Vp) + Send>;

enum Command {
    /// Run the guest while the gate is open.
    Run,
    /// Do something with the VP.
    Call(Call),
}

struct Thread {
    index: VpIndex,
    commands: mpsc::Sender<Command>,
    join: JoinHandle<()>,
}

/// All VPs of a VM. Clones share them.
#[derive(Clone)]
pub struct VpSet(Arc<Shared>);

struct Shared {
    gate: VpGate,
    /// Emptied when the VPs are torn down.
    threads: Mutex<Vec<Thread>>,
}

/// VPs on their way to their threads: making the rest of the machine need not wait for them.
pub struct BindingVps {
    gate: VpGate,
    threads: Vec<BindingThread>,
}

struct BindingThread {
    thread: Thread,
    bound: mpsc::Receiver<Result<Arc<dyn VpKick>, virt::Error>>,
    bus: mpsc::Sender<Arc<dyn IoBus>>,
}

impl BindingVps {
    /// Starts a thread for each VP. `gate` becomes the set's gate, and stays closed.
    pub fn new(
        binders: Vec<Box<dyn VpBinder>>,
        gate: VpGate,
        report: impl Fn(VpReport) + Send + Sync + 'static,
    ) -> Result<Self, VpError> {
        let report: Report = Arc::new(report);
        let threads = binders
            .into_iter()
            .map(|binder| BindingThread::start(binder, &gate, &report))
            .collect::<Result<_, _>>()?;
        Ok(Self { gate, threads })
    }

    /// Waits for the VPs, whose accesses go to `bus`.
    pub fn finish(self, bus: &Arc<dyn IoBus>) -> Result<VpSet, VpError> {
        let mut threads = Vec::with_capacity(self.threads.len());
        let mut kickers = Vec::with_capacity(self.threads.len());
        for binding in self.threads {
            let vp = binding.thread.index;
            kickers.push(match binding.bound.recv() {
                Ok(Ok(kicker)) => kicker,
                Ok(Err(source)) => return Err(VpError::Bind { vp, source }),
                Err(mpsc::RecvError) => return Err(VpError::Gone(vp)),
            });
            // A thread that is gone by now shows in the first command.
            let _ = binding.bus.send(bus.clone());
            threads.push(binding.thread);
        }
        // Nobody else fills the gate of a set that is being made.
        let _ = self.gate.0.kickers.set(kickers);
        Ok(VpSet(Arc::new(Shared {
            gate: self.gate,
            threads: Mutex::new(threads),
        })))
    }
}

impl BindingThread {
    fn start(binder: Box<dyn VpBinder>, gate: &VpGate, report: &Report) -> Result<Self, VpError> {
        let index = binder.index();
        let (commands, incoming) = mpsc::channel();
        let (bound_send, bound) = mpsc::channel();
        let (bus, bus_recv) = mpsc::channel::<Arc<dyn IoBus>>();
        let (gate, report) = (gate.clone(), report.clone());
        let join = std::thread::Builder::new()
            .name(format!("vp{}", index.0))
            .spawn(move || {
                let mut vp = match binder.bind() {
                    Ok(vp) => vp,
                    Err(error) => {
                        let _ = bound_send.send(Err(error));
                        return;
                    }
                };
                let _ = bound_send.send(Ok(vp.kicker()));
                drop(bound_send);
                // No bus comes if the machine could not be made.
                if let Ok(bus) = bus_recv.recv() {
                    serve(vp.as_mut(), &gate, bus.as_ref(), &incoming, &report);
                }
            })
            .map_err(|source| VpError::Thread { vp: index, source })?;
        Ok(Self {
            thread: Thread {
                index,
                commands,
                join,
            },
            bound,
            bus,
        })
    }
}

impl VpSet {
    /// Lets the VPs run.
    pub fn start(&self) {
        self.0.gate.open();
        self.run();
    }

    fn run(&self) {
        for thread in self.0.threads.lock().iter() {
            // A thread that is gone has said why.
            let _ = thread.commands.send(Command::Run);
        }
    }

    /// Stops the VPs, and returns when none is in the guest nor in the handling of an exit.
    pub fn stop(&self) {
        self.0.gate.close();
        // Commands are taken in order, so this is answered after the run is over.
        let _ = self.for_each(|_| ());
    }

    /// Calls `action` on each VP's own thread, all at the same time, and gives the results in VP order.
    ///
    /// Must not be called while the VPs run: it would wait for them to stop.
    pub fn for_each<R: Send + 'static>(
        &self,
        action: impl Fn(&mut dyn Vp) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, VpError> {
        let action = Arc::new(action);
        let waiting: Vec<_> = self
            .0
            .threads
            .lock()
            .iter()
            .map(|thread| (thread.index, send_call(thread, action.clone())))
            .collect();
        waiting
            .into_iter()
            .map(|(index, result)| {
                result
                    .recv()
                    .map_err(|mpsc::RecvError| VpError::Gone(index))
            })
            .collect()
    }

    /// Calls `action` on the thread of `vp`; as [`VpSet::for_each`].
    pub fn call<R: Send + 'static>(
        &self,
        vp: VpIndex,
        action: impl FnOnce(&mut dyn Vp) -> R + Send + 'static,
    ) -> Result<R, VpError> {
        let result = {
            let threads = self.0.threads.lock();
            let thread = threads
                .iter()
                .find(|thread| thread.index == vp)
                .ok_or(VpError::Gone(vp))?;
            let action = Mutex::new(Some(action));
            send_call(
                thread,
                Arc::new(move |vp: &mut dyn Vp| action.lock().take().map(|action| action(vp))),
            )
        };
        result.recv().ok().flatten().ok_or(VpError::Gone(vp))
    }

    /// As [`VpSet::for_each`], for VPs that may be running: they leave the guest for it and go on.
    pub fn interrupt_each<R: Send + 'static>(
        &self,
        action: impl Fn(&mut dyn Vp) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, VpError> {
        self.0.gate.interrupt();
        let results = self.for_each(action);
        self.0.gate.end_interruption();
        // Threads find the gate open or closed; the closed ones go back to waiting.
        self.run();
        results
    }

    /// How many VPs there are.
    pub fn len(&self) -> usize {
        self.0.threads.lock().len()
    }

    /// Stops the VPs and ends their threads.
    pub fn tear_down(&self) {
        self.0.gate.close();
        let threads = std::mem::take(&mut *self.0.threads.lock());
        for thread in threads {
            drop(thread.commands);
            let _ = thread.join.join();
        }
    }
}

fn send_call<R: Send + 'static>(
    thread: &Thread,
    action: Arc<impl Fn(&mut dyn Vp) -> R + Send + Sync + 'static>,
) -> mpsc::Receiver<R> {
    let (send, recv) = mpsc::channel();
    let _ = thread.commands.send(Command::Call(Box::new(move |vp| {
        let _ = send.send(action(vp));
    })));
    recv
}

/// A VP thread's life after it is bound.
fn serve(
    vp: &mut dyn Vp,
    gate: &VpGate,
    bus: &dyn IoBus,
    commands: &mpsc::Receiver<Command>,
    report: &Report,
) {
    let mut first_run = vp.index().is_bsp();
    while let Ok(command) = commands.recv() {
        match command {
            Command::Call(action) => action(vp),
            Command::Run => {
                if std::mem::take(&mut first_run) && gate.is_open() {
                    report(VpReport::FirstInstruction(Instant::now()));
                }
                run(vp, gate, bus, report);
            }
        }
    }
}

fn run(vp: &mut dyn Vp, gate: &VpGate, bus: &dyn IoBus, report: &Report) {
    while gate.is_open() {
        let error = match vp.run(bus) {
            // Kicks outlive the closing of the gate that they were for; then the loop goes on.
            Ok(VpStop::Requested) => continue,
            Ok(VpStop::TripleFault) => {
                gate.close();
                let registers = vp.registers().ok().map(Box::new);
                report(VpReport::TripleFault {
                    vp: vp.index(),
                    registers,
                });
                return;
            }
            Err(error) => error,
        };
        gate.close();
        let registers = vp.registers().ok().map(Box::new);
        report(VpReport::Failed { error, registers });
    }
}
