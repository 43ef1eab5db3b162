//! The end-to-end tests: one program that boots guests, on this machine or in the lab.

use super::count::Count;
use super::count::CountingWriter;
use super::queue::TestQueue;
use crate::build::GatedTest;
use crate::guest::GuestFile;
use crate::guest_run::Arg;
use crate::guest_run::GuestPlace;
use crate::guest_run::GuestRun;
use crate::guest_run::LabRunStreams;
use crate::lab::Lab;
use crate::process;
use crate::shared_writer::SharedWriter;
use std::io;
use std::process::Command;
use std::time::Duration;

/// Much longer than the tests need: each has a limit of its own.
const TIME_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The environment variable that has the program read the names of the tests from its input.
const FROM_INPUT: &str = "VMM_TESTS_FROM_INPUT";

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
        GuestPlace::Lab => count_in_labs(Lab::how_many(), run),
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

/// Runs the tests in `labs` labs. Each lab's program reads the names of the tests from its input.
fn count_in_labs(labs: usize, run: GuestRun) -> anyhow::Result<Count> {
    let tests = names(&run)?;
    anyhow::ensure!(!tests.is_empty(), "no end-to-end test has such a name");
    let labs = labs.min(tests.len());
    println!(
        "test: {} tests in {labs} labs at the same time",
        tests.len()
    );
    let mut run = run;
    run.args.clear();
    run.env.push((FROM_INPUT.to_owned(), "1".into()));
    let queue = TestQueue::new(tests, labs);
    let counter = SharedWriter::new(CountingWriter::new(io::stdout()));
    let streams = (0..labs)
        .map(|lab| {
            let from = queue.clone();
            LabRunStreams {
                input: Box::new(move || Box::new(from.input(lab))),
                output: Box::new(queue.output(lab, counter.clone())),
            }
        })
        .collect();
    let statuses = run.run_in_labs(streams)?;
    let mut count = counter.lock().count;
    count.failed += queue.left();
    Ok(count.with_status(statuses.iter().all(|status| *status == 0)))
}

/// The names of the tests that the arguments select.
fn names(run: &GuestRun) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(run.built_program()?);
    command.args(["--list", "--format", "terse"]);
    for arg in &run.args {
        if let Arg::Text(text) = arg {
            command.arg(text);
        }
    }
    let list = process::output(&mut command)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}
