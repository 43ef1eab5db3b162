//! The end-to-end tests: one program that boots guests, on this machine or in the lab.

use super::count::Count;
use super::count::CountingWriter;
use crate::build::GatedTest;
use crate::guest::GuestFile;
use crate::guest_run::Arg;
use crate::guest_run::GuestPlace;
use crate::guest_run::GuestRun;
use crate::lab::Lab;
use crate::shared_writer::SharedWriter;
use std::io;
use std::io::Write;
use std::time::Duration;

/// Much longer than the tests need: each has a limit of its own.
const TIME_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The environment variable that selects the tests to run.
const SHARE: &str = "VMM_TESTS_SHARE";

/// Runs the end-to-end tests; in the lab, in as many labs as this machine has processors and memory for.
pub(super) fn run(place: GuestPlace, args: &[String]) -> anyhow::Result<Count> {
    let args = args.iter().cloned().map(Arg::Text).collect();
    let mut run = GuestRun::of_vmm_tests("vmm_tests", args, place, TIME_LIMIT);
    run.host_programs.push("passt".to_owned());
    run.env.push((
        "VMM_TESTS_INSTALLED_DISK".to_owned(),
        Arg::Guest(GuestFile::InstalledDisk),
    ));
    match place {
        GuestPlace::Host => count(place, &run),
        GuestPlace::Lab => count_in_labs(Lab::how_many(), &run),
    }
}

/// Runs the KVM backend's tests, whose guests are a few instructions long.
pub(super) fn run_kvm(place: GuestPlace) -> anyhow::Result<Count> {
    const TEST: GatedTest = GatedTest {
        package: "virt_kvm",
        feature: "kvm_tests",
        name: "kvm",
    };
    count(
        place,
        &GuestRun {
            gated_test: Some(TEST),
            program: TEST.name.to_owned(),
            time_limit: TIME_LIMIT,
            ..GuestRun::default()
        },
    )
}

fn count(place: GuestPlace, run: &GuestRun) -> anyhow::Result<Count> {
    let counter = SharedWriter::new(CountingWriter::new(io::stdout()));
    let status = run.run(place, Box::new(counter.clone()))?;
    Ok(counter.lock().count.with_status(status == 0))
}

fn count_in_labs(labs: usize, run: &GuestRun) -> anyhow::Result<Count> {
    println!("test: {labs} labs at the same time");
    let counter = SharedWriter::new(CountingWriter::new(io::stdout()));
    let outputs = (0..labs)
        .map(|_| Box::new(WholeLines::new(counter.clone())) as Box<dyn Write + Send>)
        .collect();
    let statuses = run.run_in_labs(SHARE, outputs)?;
    let count = counter.lock().count;
    Ok(count.with_status(statuses.iter().all(|status| *status == 0)))
}

/// Forwards complete lines only, so that lines of several labs do not mix. (`io::LineWriter` forwards the beginning of
/// a line when it is flushed.)
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
    /// Forwards the incomplete last line of a lab that ended.
    fn drop(&mut self) {
        let _ = self.out.write_all(&self.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_labs_do_not_mix() {
        let counter = SharedWriter::new(CountingWriter::new(io::sink()));
        let mut first = WholeLines::new(counter.clone());
        let mut second = WholeLines::new(counter.clone());
        first.write_all(b"test result: ok. 3 pas").unwrap();
        second
            .write_all(b"test a ... ok\ntest result: FAILED. 1 passed; 2 failed\ntest")
            .unwrap();
        first.write_all(b"sed; 0 failed\n").unwrap();
        drop((first, second));
        let count = counter.lock().count;
        assert_eq!((count.passed, count.failed), (4, 2));
    }
}
