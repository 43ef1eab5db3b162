//! The end-to-end tests: one program that boots guests, run on this machine or in the lab.

use super::count::Count;
use super::count::Counter;
use crate::build::GatedTest;
use crate::place::Arg;
use crate::place::GuestRun;
use crate::place::Place;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Far beyond what the tests need: each has a limit of its own.
const TIME_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Boots guests.
pub(super) fn run(place: Place, args: &[String]) -> anyhow::Result<Count> {
    count(
        place,
        &GuestRun {
            packages: vec!["openvmm".to_owned(), "vmm_tests".to_owned()],
            gated_test: None,
            program: "vmm_tests".to_owned(),
            args: args.iter().map(|arg| Arg::Text(arg.clone())).collect(),
            host_programs: Vec::new(),
            host_files: Vec::new(),
            env: place.test_environment(),
            outputs: Vec::new(),
            time_limit: TIME_LIMIT,
        },
    )
}

/// Runs the KVM backend on guests of a few instructions.
pub(super) fn run_kvm(place: Place) -> anyhow::Result<Count> {
    const TEST: GatedTest = GatedTest {
        package: "virt_kvm",
        feature: "kvm_tests",
        name: "kvm",
    };
    count(
        place,
        &GuestRun {
            packages: Vec::new(),
            gated_test: Some(TEST),
            program: TEST.name.to_owned(),
            args: Vec::new(),
            host_programs: Vec::new(),
            host_files: Vec::new(),
            env: Vec::new(),
            outputs: Vec::new(),
            time_limit: TIME_LIMIT,
        },
    )
}

fn count(place: Place, run: &GuestRun) -> anyhow::Result<Count> {
    let counter = SharedCounter(Arc::new(Mutex::new(Counter::new(io::stdout()))));
    let status = run.run(place, Box::new(counter.clone()))?;
    let count = counter
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .count;
    Ok(count.with_status(status == 0))
}

/// A counter that is read after its owner wrote to it.
#[derive(Clone)]
struct SharedCounter(Arc<Mutex<Counter<io::Stdout>>>);

impl Write for SharedCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.flush()
    }
}
