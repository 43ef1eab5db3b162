//! The VPs' threads.
//!
//! Each VP has a thread that owns it. The thread runs the guest while [`RunControl`] lets it, and otherwise waits for
//! commands. Everything else that touches a VP is a command, carried out on its thread.

use crate::ReportKind;
use crate::RunControl;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use virt::IoBus;
use virt::Vp;
use virt::VpBinder;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;

/// Why the VPs' threads cannot work.
#[derive(Debug, thiserror::Error)]
pub enum VpError {
    /// The host refused a thread.
    #[error("failed to start the thread of {vp}")]
    Thread {
        /// Which VP.
        vp: VpIndex,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The hypervisor refused the thread.
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

type Call = Box<dyn FnOnce(&mut dyn Vp) + Send>;

enum Command {
    /// Run the guest for as long as that is allowed.
    Run,
    /// Do something with the VP.
    Call(Call),
}

struct Thread {
    index: VpIndex,
    commands: mpsc::Sender<Command>,
    join: JoinHandle<()>,
}

/// All VPs of a VM. Clones share them; when the last one is dropped, the VPs are stopped and their threads end.
#[derive(Clone)]
pub struct VpSet(Arc<Shared>);

struct Shared {
    control: RunControl,
    /// Emptied when the VPs are torn down.
    threads: Mutex<Vec<Thread>>,
}

/// VPs that are being bound to their threads. The rest of the machine can be built meanwhile.
pub struct BindingVps {
    control: RunControl,
    threads: Vec<BindingThread>,
}

struct BindingThread {
    thread: Thread,
    bound: mpsc::Receiver<Result<Arc<dyn VpKick>, virt::Error>>,
    bus: mpsc::Sender<Arc<dyn IoBus>>,
}

impl BindingVps {
    /// Starts a thread for each VP, all of which `control` keeps out of the guest.
    pub fn new(binders: Vec<Box<dyn VpBinder>>, control: RunControl) -> Result<Self, VpError> {
        let threads = binders
            .into_iter()
            .map(|binder| BindingThread::start(binder, &control))
            .collect::<Result<_, _>>()?;
        Ok(Self { control, threads })
    }

    /// Waits until all VPs are bound. Their accesses go to `bus`.
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
            // If the thread is gone, the first command fails.
            let _ = binding.bus.send(bus.clone());
            threads.push(binding.thread);
        }
        self.control.set_kickers(kickers);
        Ok(VpSet(Arc::new(Shared {
            control: self.control,
            threads: Mutex::new(threads),
        })))
    }
}

impl BindingThread {
    fn start(binder: Box<dyn VpBinder>, control: &RunControl) -> Result<Self, VpError> {
        let index = binder.index();
        let (commands, incoming) = mpsc::channel();
        let (bound_send, bound) = mpsc::channel();
        let (bus, bus_recv) = mpsc::channel::<Arc<dyn IoBus>>();
        let control = control.clone();
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
                // There is no bus if the machine could not be built.
                if let Ok(bus) = bus_recv.recv() {
                    serve(vp.as_mut(), &control, bus.as_ref(), &incoming);
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
        self.0.control.open();
        self.run();
    }

    fn run(&self) {
        for thread in self.0.threads.lock().iter() {
            // A thread that is gone has reported why.
            let _ = thread.commands.send(Command::Run);
        }
    }

    /// Stops the VPs. Returns when no VP is in the guest or handling an exit.
    pub fn stop(&self) {
        self.0.control.close();
        // Commands are taken in order, so this is answered after the run is over.
        let _ = self.for_each(|_| ());
    }

    /// Calls `action` on the thread of each VP, in parallel. Returns the results in VP order.
    ///
    /// Must not be called while the VPs run: it would wait until they stop.
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

    /// Calls `action` on the thread of `vp`. Must not be called while the VPs run.
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

    /// As [`VpSet::for_each`], also while the VPs run: they leave the guest for `action`, and go on.
    pub fn interrupt_each<R: Send + 'static>(
        &self,
        action: impl Fn(&mut dyn Vp) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, VpError> {
        self.0.control.interrupt();
        let results = self.for_each(action);
        self.0.control.end_interruption();
        // Has no effect if the machine was stopped meanwhile.
        self.run();
        results
    }

    /// What stops the VPs from any thread.
    pub fn control(&self) -> &RunControl {
        &self.0.control
    }

    /// The number of VPs; 0 once they are torn down.
    pub fn count(&self) -> usize {
        self.0.threads.lock().len()
    }

    /// Stops the VPs and ends their threads.
    pub fn tear_down(&self) {
        self.0.tear_down();
    }
}

impl Shared {
    fn tear_down(&self) {
        self.control.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            drop(thread.commands);
            let _ = thread.join.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tear_down();
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
    control: &RunControl,
    bus: &dyn IoBus,
    commands: &mpsc::Receiver<Command>,
) {
    let mut first_run = vp.index().is_bsp();
    while let Ok(command) = commands.recv() {
        match command {
            Command::Call(action) => action(vp),
            Command::Run => {
                if control.is_open() && std::mem::take(&mut first_run) {
                    control.report(ReportKind::FirstInstruction(Instant::now()));
                }
                run(vp, control, bus);
            }
        }
    }
}

fn run(vp: &mut dyn Vp, control: &RunControl, bus: &dyn IoBus) {
    while control.is_open() {
        let stopped = vp.run(bus);
        if matches!(stopped, Ok(VpStop::Requested)) {
            // The kick may be older than the run; then the VP goes on.
            continue;
        }
        control.close();
        let registers = vp.registers().ok().map(Box::new);
        let vp = vp.index();
        control.report(match stopped {
            Ok(_) => ReportKind::TripleFault { vp, registers },
            Err(error) => ReportKind::Failed { error, registers },
        });
    }
}

#[cfg(test)]
#[path = "vps_test.rs"]
mod tests;
