//! `cargo xtask test`: all checks and tests of the tree.

mod count;
mod e2e;
mod queue;

use crate::check_layers;
use crate::fuzz;
use crate::guest_run::PlaceOption;
use crate::process;
use crate::setup;
use crate::workspace;
use clap::Args;
use clap::ValueEnum;
use count::Count;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

/// Check style and layers, and run unit tests, fuzz targets, tests of the KVM backend and end-to-end tests.
///
/// Installs missing programs. The last line of output tells how many tests passed and failed.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Run only this step. Can be repeated.
    #[arg(long, value_enum)]
    only: Vec<TestStep>,
    /// Where end-to-end tests run their guests.
    #[arg(long = "where", value_enum, default_value_t)]
    place: PlaceOption,
    /// How long each fuzz target runs.
    #[arg(long, value_name = "N", default_value_t = 5)]
    fuzz_seconds: u32,
    /// Arguments for the end-to-end tests: part of a test's name, or --list.
    #[arg(last = true)]
    e2e_args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TestStep {
    Lint,
    Unit,
    Fuzz,
    Kvm,
    E2e,
}

const STEPS: [TestStep; 5] = [
    TestStep::Lint,
    TestStep::Unit,
    TestStep::Fuzz,
    TestStep::Kvm,
    TestStep::E2e,
];

/// The result of a step.
struct StepOutcome {
    name: &'static str,
    place: String,
    count: Count,
    seconds: f64,
}

pub(crate) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let mut outcomes = Vec::new();
    for step in STEPS {
        if !args.only.is_empty() && !args.only.contains(&step) {
            continue;
        }
        let started = Instant::now();
        println!("test: {step:?}");
        let mut place = "this machine".to_owned();
        let (name, count) = match step {
            TestStep::Lint => ("lint", lint()),
            TestStep::Unit => ("unit tests", unit()),
            TestStep::Fuzz => ("fuzz targets", fuzz_smoke(args.fuzz_seconds)),
            TestStep::Kvm => {
                let (chosen, why) = args.place.decide();
                place = why;
                println!("test: guests run {place}");
                ("KVM backend", e2e::run_kvm(chosen))
            }
            TestStep::E2e => {
                let (chosen, why) = args.place.decide();
                place = why;
                println!("test: guests run {place}");
                ("end-to-end tests", e2e::run(chosen, &args.e2e_args))
            }
        };
        // A step that could not run counts as one failure; the other steps still run.
        let count = count.unwrap_or_else(|err| {
            println!("test: {name}: {err:#}");
            Count::FAILED
        });
        outcomes.push(StepOutcome {
            name,
            place,
            count,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    Ok(summarize(&outcomes))
}

fn summarize(outcomes: &[StepOutcome]) -> ExitCode {
    println!();
    let mut total = Count::default();
    for outcome in outcomes {
        println!(
            "{:<17} {:>5} passed {:>3} failed {:>3} skipped {:>6.0} s  ({})",
            outcome.name,
            outcome.count.passed,
            outcome.count.failed,
            outcome.count.skipped,
            outcome.seconds,
            outcome.place
        );
        total += outcome.count;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 && total.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn lint() -> anyhow::Result<Count> {
    let mut count = Count::default();
    let mut check = |name: &str, result: anyhow::Result<()>| {
        match &result {
            Ok(()) => println!("lint: {name}: ok"),
            Err(err) => println!("lint: {name}: FAILED: {err:#}"),
        }
        count += Count::of(result.is_ok());
    };
    check(
        "format",
        process::run(workspace::cargo().args(["fmt", "--all", "--check"])),
    );
    if workspace::root().join("fuzz/Cargo.toml").exists() {
        check(
            "format of fuzz/",
            process::run(workspace::cargo().args([
                "fmt",
                "--manifest-path",
                "fuzz/Cargo.toml",
                "--check",
            ])),
        );
    }
    check(
        "clippy",
        process::run(workspace::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny=warnings",
        ])),
    );
    check("layers", check_layers::verify());
    Ok(count)
}

fn unit() -> anyhow::Result<Count> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    count::of_command(&mut command, io::stdout())
}

fn fuzz_smoke(seconds: u32) -> anyhow::Result<Count> {
    Ok(fuzz::smoke(seconds)?
        .into_iter()
        .map(|(_, clean)| Count::of(clean))
        .fold(Count::default(), |total, one| total + one))
}
