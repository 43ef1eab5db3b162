//! The end-to-end tests: one program that boots guests, run on this machine or in the lab.

use super::count::Count;
use super::count::Counter;
use crate::build::GatedTest;
use crate::lab::Lab;
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

/// What tells the tests which of them to run.
const SHARE: &str = "VMM_TESTS_SHARE";

/// Boots guests; in the lab, in as many labs as this machine has processors for.
pub(super) fn run(place: Place, args: &[String]) -> anyhow::Result<Count> {
    let run = GuestRun {
        packages: vec!["openvmm".to_owned(), "vmm_tests".to_owned()],
        gated_test: None,
        program: "vmm_tests".to_owned(),
        args: args.iter().map(|arg| Arg::Text(arg.clone())).collect(),
        host_programs: Vec::new(),
        host_files: Vec::new(),
        env: place.test_environment(),
        outputs: Vec::new(),
        time_limit: TIME_LIMIT,
    };
    match place {
        Place::Host => count(place, &run),
        Place::Lab => count_in_labs(Lab::how_many(), &run),
    }
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
    let counter = SharedCounter::new(io::stdout());
    let status = run.run(place, Box::new(counter.clone()))?;
    Ok(counter.count().with_status(status == 0))
}

fn count_in_labs(labs: usize, run: &GuestRun) -> anyhow::Result<Count> {
    println!("test: {labs} labs at the same time");
    let counter = SharedCounter::new(io::stdout());
    let outputs = (0..labs)
        .map(|_| Box::new(WholeLines::new(counter.clone())) as Box<dyn Write + Send>)
        .collect();
    let statuses = run.run_in_labs(SHARE, outputs)?;
    let count = counter.count();
    Ok(count.with_status(statuses.iter().all(|status| *status == 0)))
}

/// Passes on lines when they are complete, so that those of several labs do not mix.
struct WholeLines<W: Write> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> WholeLines<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            line: Vec::new(),
        }
    }
}

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.out.write_all(&self.line[..=end])?;
            self.line.drain(..=end);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for WholeLines<W> {
    /// What a lab that ended within a line said of it.
    fn drop(&mut self) {
        let _ = self.out.write_all(&self.line);
    }
}

/// A counter that is read after its owner wrote to it.
struct SharedCounter<W>(Arc<Mutex<Counter<W>>>);

impl<W: Write> SharedCounter<W> {
    fn new(out: W) -> Self {
        Self(Arc::new(Mutex::new(Counter::new(out))))
    }

    fn count(&self) -> Count {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl<W> Clone for SharedCounter<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Write> Write for SharedCounter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_labs_do_not_mix() {
        let counter = SharedCounter::new(io::sink());
        let mut first = WholeLines::new(counter.clone());
        let mut second = WholeLines::new(counter.clone());
        first.write_all(b"test result: ok. 3 pas").unwrap();
        second
            .write_all(b"test a ... ok\ntest result: FAILED. 1 passed; 2 failed\ntest")
            .unwrap();
        first.write_all(b"sed; 0 failed\n").unwrap();
        drop((first, second));
        let count = counter.count();
        assert_eq!((count.passed, count.failed), (4, 2));
    }
}
