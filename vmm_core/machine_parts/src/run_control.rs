//! Stopping the guest from any thread, and telling the machine's owner why.

use crate::Report;
use crate::ReportKind;
use chipset_device::PowerSink;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use virt::VpKick;

/// The number of a run. A run begins at power-on or a reset, and ends at the next reset.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct RunId(u64);

/// Decides whether VPs may be in the guest, and carries reports to the machine's owner. Clones share one state.
#[derive(Clone)]
pub struct RunControl(Arc<Shared>);

struct Shared {
    /// Whether the machine runs.
    open: AtomicBool,
    /// Whether VPs are kept out of the guest for a moment, to be read.
    interrupted: AtomicBool,
    /// Whether a power request is accepted.
    armed: AtomicBool,
    run: AtomicU64,
    kickers: OnceLock<Vec<Arc<dyn VpKick>>>,
    report: Box<dyn Fn(Report) + Send + Sync>,
}

impl RunControl {
    /// A control whose gate is closed. `report` is called on VP threads and must not wait for the machine's owner.
    ///
    /// The number of reports that an owner has not seen yet is bounded: in each run between a start and a stop, at most
    /// one power request and two reports of each VP are made.
    pub fn new(report: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            open: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            run: AtomicU64::new(0),
            kickers: OnceLock::new(),
            report: Box::new(report),
        }))
    }

    /// Takes the guest's power requests.
    ///
    /// A request makes every VP leave the guest. One is reported for each start of the VPs: another VP may make a
    /// second request before the first one has stopped it.
    pub fn power_sink(&self) -> PowerSink {
        let control = self.clone();
        PowerSink::new(move |event| {
            control.close();
            if control.0.armed.swap(false, Ordering::SeqCst) {
                control.report(ReportKind::Power(event));
            }
        })
    }

    /// Makes every VP leave the guest, and stay out, before it executes another instruction.
    ///
    /// A VP that is handling an exit (the caller, perhaps) does not enter the guest again. Does not wait.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::SeqCst);
        self.kick();
    }

    /// The run that is under way.
    pub fn run(&self) -> RunId {
        RunId(self.0.run.load(Ordering::SeqCst))
    }

    /// Begins a new run. Reports of the earlier one, which may still be queued, keep its number. All VPs are stopped.
    pub(crate) fn begin_run(&self) {
        self.0.run.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn report(&self, kind: ReportKind) {
        (self.0.report)(Report {
            run: self.run(),
            kind,
        });
    }

    pub(crate) fn open(&self) {
        self.0.armed.store(true, Ordering::SeqCst);
        self.0.open.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.open.load(Ordering::SeqCst) && !self.0.interrupted.load(Ordering::SeqCst)
    }

    /// Keeps VPs out of the guest without closing the gate: if it is closed meanwhile, it stays closed.
    pub(crate) fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::SeqCst);
        self.kick();
    }

    pub(crate) fn end_interruption(&self) {
        self.0.interrupted.store(false, Ordering::SeqCst);
    }

    /// Sets what makes VPs leave the guest, once.
    pub(crate) fn set_kickers(&self, kickers: Vec<Arc<dyn VpKick>>) {
        // Only the set of VPs that is being made sets them.
        let _ = self.0.kickers.set(kickers);
    }

    fn kick(&self) {
        for kicker in self.0.kickers.get().into_iter().flatten() {
            kicker.kick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::PowerEvent;
    use parking_lot::Mutex;

    #[test]
    fn the_gate_is_closed_when_a_power_request_is_reported() {
        let gate = Arc::new(OnceLock::<RunControl>::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let control = {
            let (gate, seen) = (gate.clone(), seen.clone());
            RunControl::new(move |_| seen.lock().push(gate.get().map(RunControl::is_open)))
        };
        let _ = gate.set(control.clone());
        control.open();
        control.power_sink().request(PowerEvent::PowerOff);
        assert_eq!(*seen.lock(), [Some(false)]);
    }

    #[test]
    fn each_start_reports_one_power_request() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let control = {
            let reports = reports.clone();
            RunControl::new(move |report| reports.lock().push(report))
        };
        let first = control.run();
        let sink = control.power_sink();
        sink.request(PowerEvent::Reset);
        assert!(reports.lock().is_empty());
        control.open();
        sink.request(PowerEvent::PowerOff);
        assert!(!control.is_open());
        sink.request(PowerEvent::Reset);
        control.begin_run();
        control.open();
        sink.request(PowerEvent::Reset);
        let reports = reports.lock();
        let [one, two] = reports.as_slice() else {
            panic!("{reports:?}");
        };
        assert!(matches!(one.kind, ReportKind::Power(PowerEvent::PowerOff)));
        assert!(matches!(two.kind, ReportKind::Power(PowerEvent::Reset)));
        assert_eq!((one.run, two.run), (first, control.run()));
        assert_ne!(first, control.run());
    }
}
