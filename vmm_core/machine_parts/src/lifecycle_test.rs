use super::*;
use crate::BindingVps;
use crate::RunControl;
use crate::RunId;
use crate::test_support::NoBus;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use parking_lot::Mutex;
use state_unit::ResetError;
use state_unit::StateUnit;
use std::sync::Arc;
use virt::IoBus;
use virt::RunError;

/// What happened, in order, and what is to fail.
#[derive(Default)]
struct Record {
    log: Mutex<Vec<String>>,
    failing: Mutex<Option<&'static str>>,
}

impl Record {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    fn attempt(&self, what: &'static str) -> Result<(), std::io::Error> {
        self.note(what);
        match *self.failing.lock() == Some(what) {
            true => Err(std::io::Error::other(format!("{what} failed"))),
            false => Ok(()),
        }
    }
}

struct Unit(Arc<Record>, u32);

impl StateUnit for Unit {
    fn start(&mut self) {
        self.0.note("start");
    }

    fn stop(&mut self) {
        self.0.note("stop");
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        self.0
            .attempt("reset")
            .map_err(|error| ResetError(error.into()))
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.1))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.1 = state.decode()?;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        self.1.into()
    }
}

struct Double(Arc<Record>);

impl Guest for Double {
    type LoadError = std::io::Error;

    fn load(&mut self, _: &VpSet) -> Result<(), std::io::Error> {
        self.0.attempt("load")
    }

    fn settle(&mut self, ending: Ending<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        match ending {
            Ending::Halted(reason) => self.0.note(format!("settle {}", reason.name())),
            Ending::Stopped => self.0.note("settle stopped"),
        }
        Ok(self.0.attempt("settled")?)
    }
}

/// A machine without VPs, whose only unit has the state `value`.
fn machine(value: u32, after_guest: AfterGuest) -> (Lifecycle<Double>, Arc<Record>, RunControl) {
    let record = Arc::new(Record::default());
    let control = RunControl::new(|_| ());
    let bus: Arc<dyn IoBus> = Arc::new(NoBus);
    let vps = BindingVps::new(Vec::new(), control.clone()).unwrap();
    let vps = vps.finish(&bus).unwrap();
    let mut units = StateUnits::builder();
    units.add("unit", Unit(record.clone(), value));
    let events = record.clone();
    let machine = Lifecycle::new(
        units.build().unwrap(),
        vps,
        Double(record.clone()),
        after_guest,
        move |_, event| {
            events.note(match event {
                LifecycleEvent::Halted(reason) => format!("event halted {}", reason.name()),
                event => format!("event {event:?}").to_lowercase(),
            });
        },
    );
    (machine, record, control)
}

fn power(run: RunId, event: PowerEvent) -> Report {
    Report {
        run,
        kind: ReportKind::Power(event),
    }
}

#[test]
fn pauses_and_resumes() {
    let (mut machine, record, _) = machine(1, AfterGuest::default());
    machine.load().unwrap();
    assert_eq!(machine.resume().unwrap(), Change::Changed);
    assert_eq!(machine.resume().unwrap(), Change::Unchanged);
    assert_eq!(machine.pause().unwrap(), Change::Changed);
    assert_eq!(machine.pause().unwrap(), Change::Unchanged);
    assert_eq!(machine.state(), MachineState::Paused);
    machine.resume().unwrap();
    assert_eq!(
        record.take(),
        [
            "load",
            "event started",
            "start",
            "stop",
            "event paused",
            "event resumed",
            "start"
        ]
    );
}

#[test]
fn a_reset_loads_again_and_goes_on_as_before() {
    let (mut machine, record, _) = machine(1, AfterGuest::default());
    machine.reset().unwrap();
    assert_eq!(record.take(), ["reset", "load", "event reset"]);
    machine.resume().unwrap();
    record.take();
    machine.reset().unwrap();
    assert_eq!(
        record.take(),
        ["stop", "reset", "load", "event reset", "start"]
    );
    assert_eq!(machine.state(), MachineState::Running);
}

#[test]
fn a_report_of_an_earlier_run_has_no_effect() {
    let (mut machine, record, control) = machine(1, AfterGuest::default());
    machine.resume().unwrap();
    let before = control.run();
    machine.reset().unwrap();
    record.take();
    machine.report(power(before, PowerEvent::PowerOff));
    machine.report(Report {
        run: before,
        kind: ReportKind::TripleFault {
            vp: VpIndex::BSP,
            registers: None,
        },
    });
    assert_eq!(record.take(), [""; 0]);
    machine.report(power(control.run(), PowerEvent::PowerOff));
    assert_eq!(
        record.take(),
        [
            "stop",
            "settle power_off",
            "settled",
            "event halted power_off"
        ]
    );
}

#[test]
fn a_failed_reset_halts_the_machine_and_says_so() {
    for what in ["reset", "load"] {
        for by_guest in [false, true] {
            let (mut machine, record, control) = machine(1, AfterGuest::default());
            machine.resume().unwrap();
            *record.failing.lock() = Some(what);
            match by_guest {
                false => assert!(machine.reset().is_err()),
                true => machine.report(power(control.run(), PowerEvent::Reset)),
            }
            assert_eq!(machine.state(), MachineState::Halted);
            let log = record.take();
            assert_eq!(log.last().unwrap(), "event halted error");
            assert!(log.contains(&"settle error".to_owned()));
            assert!(matches!(machine.resume(), Err(LifecycleError::Halted)));
        }
    }
}

#[test]
fn a_guest_that_resets_can_halt_the_machine() {
    let after_guest = AfterGuest {
        reset: AfterEnd::Halt,
        ..AfterGuest::default()
    };
    let (mut machine, record, control) = machine(1, after_guest);
    machine.resume().unwrap();
    machine.report(power(control.run(), PowerEvent::Reset));
    assert_eq!(record.take().last().unwrap(), "event halted reset");
}

#[test]
fn a_machine_can_start_again_however_its_guest_ended() {
    let after_guest = AfterGuest {
        power_off: AfterEnd::Restart,
        crash: AfterEnd::Restart,
        ..AfterGuest::default()
    };
    let (mut machine, record, control) = machine(1, after_guest);
    machine.resume().unwrap();
    let fault = || ReportKind::TripleFault {
        vp: VpIndex::BSP,
        registers: None,
    };
    for kind in [
        ReportKind::Power(PowerEvent::PowerOff),
        ReportKind::Power(PowerEvent::GuestPanicked),
        fault(),
    ] {
        record.take();
        let run = control.run();
        machine.report(Report { run, kind });
        assert!(record.take().contains(&"event reset".to_owned()));
        assert_eq!(machine.state(), MachineState::Running);
        // What the former run still reports is ignored.
        machine.report(Report { run, kind: fault() });
        assert_eq!(record.take(), [""; 0]);
    }
    // A guest that hibernated resumes only on a machine that was made for that.
    machine.report(power(control.run(), PowerEvent::Hibernate));
    assert_eq!(record.take().last().unwrap(), "event halted hibernate");
}

#[test]
fn each_report_of_an_end_halts_the_machine_for_its_reason() {
    let failed = || ReportKind::Failed {
        error: RunError::FailEntry {
            vp: VpIndex::BSP,
            reason: 7,
        },
        registers: None,
    };
    let fault = || ReportKind::TripleFault {
        vp: VpIndex::BSP,
        registers: None,
    };
    for (kind, reason) in [
        (ReportKind::Power(PowerEvent::PowerOff), "power_off"),
        (ReportKind::Power(PowerEvent::Hibernate), "hibernate"),
        (ReportKind::Power(PowerEvent::GuestPanicked), "guest_panic"),
        (fault(), "triple_fault"),
        (failed(), "hypervisor_error"),
    ] {
        let (mut machine, record, control) = machine(1, AfterGuest::default());
        machine.resume().unwrap();
        let run = control.run();
        let first = ReportKind::FirstInstruction(Instant::now());
        machine.report(Report { run, kind: first });
        assert_eq!(record.take().last().unwrap(), "event firstinstruction");
        machine.report(Report { run, kind });
        let halted = format!("event halted {reason}");
        assert_eq!(*record.take().last().unwrap(), halted);
        assert!(matches!(machine.save(), Err(LifecycleError::Halted)));
        // The first reason stays.
        machine.report(Report { run, kind: fault() });
        assert_eq!(record.take(), [""; 0]);
    }
}

#[test]
fn what_cannot_be_made_durable_is_the_reason() {
    let (mut machine, record, control) = machine(1, AfterGuest::default());
    machine.resume().unwrap();
    *record.failing.lock() = Some("settled");
    machine.report(power(control.run(), PowerEvent::Hibernate));
    assert_eq!(record.take().last().unwrap(), "event halted error");
}

#[test]
fn a_stop_settles_once() {
    let (mut machine, record, _) = machine(1, AfterGuest::default());
    machine.resume().unwrap();
    record.take();
    machine.stop();
    machine.stop();
    assert_eq!(record.take(), ["stop", "settle stopped", "settled"]);

    let (mut machine, record, control) = self::machine(1, AfterGuest::default());
    machine.resume().unwrap();
    machine.report(power(control.run(), PowerEvent::PowerOff));
    record.take();
    machine.stop();
    assert_eq!(record.take(), [""; 0]);
}

#[test]
fn a_paused_machine_is_saved_and_restored() {
    let (mut machine, _, _) = machine(7, AfterGuest::default());
    machine.resume().unwrap();
    assert!(matches!(machine.save(), Err(LifecycleError::Running)));
    machine.pause().unwrap();
    let saved = machine.save().unwrap();
    let (mut other, record, _) = self::machine(1, AfterGuest::default());
    other.restore(&saved).unwrap();
    assert_eq!(other.inspect()["unit"], 7);
    assert_eq!(other.save().unwrap(), saved);
    other.resume().unwrap();
    assert_eq!(record.take(), ["event started", "start"]);
}
