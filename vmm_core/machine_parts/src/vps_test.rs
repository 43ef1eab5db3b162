use super::*;
use crate::Report;
use crate::test_support::NoBus;
use parking_lot::Condvar;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use virt::Error;
use virt::RunError;
use virt::x86::Registers;
use virt::x86::VpState;

/// A VP that "executes" by counting, and leaves when it is kicked.
struct Spinner {
    index: VpIndex,
    kick: Arc<Kick>,
    executed: Arc<AtomicU64>,
    ending: Ending,
}

#[derive(Copy, Clone, PartialEq)]
enum Ending {
    Never,
    TripleFault,
    Failure,
}

#[derive(Default)]
struct Kick {
    pending: Mutex<bool>,
    kicked: Condvar,
}

impl VpKick for Kick {
    fn kick(&self) {
        *self.pending.lock() = true;
        self.kicked.notify_all();
    }
}

impl VpBinder for Spinner {
    fn index(&self) -> VpIndex {
        self.index
    }

    fn bind(self: Box<Self>) -> Result<Box<dyn Vp>, Error> {
        Ok(self)
    }
}

impl Vp for Spinner {
    fn index(&self) -> VpIndex {
        self.index
    }

    fn kicker(&self) -> Arc<dyn VpKick> {
        self.kick.clone()
    }

    fn run(&mut self, _: &dyn IoBus) -> Result<VpStop, RunError> {
        match self.ending {
            Ending::Never => {}
            Ending::TripleFault => return Ok(VpStop::TripleFault),
            Ending::Failure => {
                return Err(RunError::FailEntry {
                    vp: self.index,
                    reason: 7,
                });
            }
        }
        let mut pending = self.kick.pending.lock();
        self.executed.fetch_add(1, Ordering::SeqCst);
        while !*pending {
            self.kick.kicked.wait(&mut pending);
        }
        *pending = false;
        Ok(VpStop::Requested)
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        Ok(Registers {
            rip: u64::from(self.index.0),
            ..Registers::default()
        })
    }

    fn set_registers(&mut self, _: &Registers) -> Result<(), Error> {
        Ok(())
    }

    fn set_msrs(&mut self, _: &[(u32, u64)]) -> Result<(), Error> {
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn save(&mut self) -> Result<VpState, Error> {
        Err(Error::MissingCapability { what: "state" })
    }

    fn restore(&mut self, _: &VpState) -> Result<(), Error> {
        Err(Error::MissingCapability { what: "state" })
    }
}

fn vps(
    endings: &[Ending],
) -> (
    VpSet,
    RunControl,
    mpsc::Receiver<Report>,
    Vec<Arc<AtomicU64>>,
) {
    let (send, reports) = mpsc::channel();
    let control = RunControl::new(move |report| {
        let _ = send.send(report);
    });
    let (set, executed) = vps_of(&control, endings);
    (set, control, reports, executed)
}

fn vps_of(control: &RunControl, endings: &[Ending]) -> (VpSet, Vec<Arc<AtomicU64>>) {
    let executed: Vec<_> = endings.iter().map(|_| Arc::default()).collect();
    let binders = endings
        .iter()
        .zip(&executed)
        .zip(0..)
        .map(|((ending, executed), n)| {
            Box::new(Spinner {
                index: VpIndex(n),
                kick: Arc::default(),
                executed: Arc::clone(executed),
                ending: *ending,
            }) as Box<dyn VpBinder>
        })
        .collect();
    let bus: Arc<dyn IoBus> = Arc::new(NoBus);
    let binding = BindingVps::new(binders, control.clone());
    let set = binding.unwrap().finish(&bus).unwrap();
    (set, executed)
}

#[test]
fn late_kicks_do_not_stop_the_next_run() {
    let (set, control, _reports, executed) = vps(&[Ending::Never; 3]);
    for _ in 0..200 {
        set.start();
        // As when a device stops the machine: the stop that follows kicks VPs that have stopped already.
        control.close();
        set.stop();
        control.close();
    }
    let before: Vec<_> = executed.iter().map(|n| n.load(Ordering::SeqCst)).collect();
    set.start();
    // Each VP gets into the guest and stays there, whatever kicks were left over.
    for (executed, before) in executed.iter().zip(before) {
        while executed.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
    }
    set.stop();
    set.tear_down();
}

#[test]
fn commands_run_on_each_vp_in_order() {
    let (set, _control, _reports, _) = vps(&[Ending::Never; 4]);
    let indexes = set.for_each(|vp| vp.index().0).unwrap();
    assert_eq!(indexes, [0, 1, 2, 3]);
    assert_eq!(
        set.call(VpIndex(2), |vp| vp.registers().unwrap().rip)
            .unwrap(),
        2
    );
    assert!(matches!(
        set.call(VpIndex(9), |_| ()),
        Err(VpError::Gone(VpIndex(9)))
    ));
    set.start();
    assert_eq!(set.interrupt_each(|vp| vp.index().0).unwrap(), [0, 1, 2, 3]);
    set.stop();
    set.tear_down();
    assert_eq!(set.count(), 0);
}

fn counts(executed: &[Arc<AtomicU64>]) -> Vec<u64> {
    executed.iter().map(|n| n.load(Ordering::SeqCst)).collect()
}

/// Waits until each VP has entered the guest since `before`.
fn wait_for_entries(executed: &[Arc<AtomicU64>], before: &[u64]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while counts(executed).iter().zip(before).any(|(n, m)| n == m) {
        assert!(Instant::now() < deadline, "a VP does not run");
        std::thread::yield_now();
    }
}

#[test]
fn the_first_run_of_the_boot_processor_is_reported_once() {
    let (set, _control, reports, executed) = vps(&[Ending::Never; 2]);
    let kinds = || reports.try_iter().map(|r| r.kind).collect::<Vec<_>>();
    // The VPs do not run yet.
    set.interrupt_each(|_| ()).unwrap();
    set.for_each(|_| ()).unwrap();
    assert!(kinds().is_empty());
    let run = || {
        let before = counts(&executed);
        set.start();
        wait_for_entries(&executed, &before);
        set.stop();
        kinds()
    };
    let first = run();
    assert!(
        matches!(first.as_slice(), [ReportKind::FirstInstruction(_)]),
        "{first:?}"
    );
    assert!(run().is_empty());
}

#[test]
fn vps_go_on_after_an_interruption() {
    let (set, _control, _reports, executed) = vps(&[Ending::Never; 2]);
    set.start();
    let counters = executed.clone();
    let before = set.interrupt_each(move |vp| {
        let counter = &counters[vp.index().0 as usize];
        counter.load(Ordering::SeqCst)
    });
    wait_for_entries(&executed, &before.unwrap());
    set.stop();
}

#[test]
fn a_stop_during_an_interruption_is_kept() {
    let (set, control, _reports, executed) = vps(&[Ending::Never]);
    set.start();
    while executed[0].load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let closer = control.clone();
    set.interrupt_each(move |_| closer.close()).unwrap();
    let count = executed[0].load(Ordering::SeqCst);
    // Answered by the VP's thread after the command to run, if there was one.
    set.for_each(|_| ()).unwrap();
    assert_eq!(executed[0].load(Ordering::SeqCst), count);
    assert!(!control.is_open());
}

#[test]
fn a_vp_that_shuts_down_stops_the_others() {
    let (set, control, reports, _) = vps(&[Ending::Never, Ending::TripleFault]);
    set.start();
    let report = loop {
        match reports.recv().unwrap().kind {
            ReportKind::FirstInstruction(_) => {}
            report => break report,
        }
    };
    let ReportKind::TripleFault { vp, registers } = report else {
        panic!("{report:?}");
    };
    assert_eq!(vp, VpIndex(1));
    assert_eq!(registers.unwrap().rip, 1);
    assert!(!control.is_open());
    set.stop();
}

#[test]
fn the_gate_is_closed_when_a_vp_reports_its_end() {
    let (send, open) = mpsc::channel();
    let gate = Arc::new(OnceLock::<RunControl>::new());
    let control = {
        let gate = gate.clone();
        RunControl::new(move |report: Report| {
            if matches!(report.kind, ReportKind::TripleFault { .. }) {
                let _ = send.send(gate.get().map(RunControl::is_open));
            }
        })
    };
    let _ = gate.set(control.clone());
    let (set, _) = vps_of(&control, &[Ending::TripleFault]);
    set.start();
    assert_eq!(open.recv(), Ok(Some(false)));
    set.stop();
}

#[test]
fn a_failed_vp_reports_its_error() {
    let (set, _control, reports, _) = vps(&[Ending::Failure]);
    set.start();
    let mut reports = reports.iter().map(|report| report.kind);
    assert!(matches!(
        reports.next(),
        Some(ReportKind::FirstInstruction(_))
    ));
    assert!(matches!(
        reports.next(),
        Some(ReportKind::Failed {
            error: RunError::FailEntry { reason: 7, .. },
            ..
        })
    ));
    set.stop();
}

#[test]
fn vps_that_are_dropped_while_they_run_end() {
    let (set, control, _reports, executed) = vps(&[Ending::Never; 2]);
    set.start();
    while executed[0].load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    drop(set);
    assert!(!control.is_open());
    for executed in executed {
        // The thread owned the VP, which shared it.
        assert_eq!(Arc::strong_count(&executed), 1);
    }
}
