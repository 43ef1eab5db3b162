//! `cargo xtask fuzz`: runs libFuzzer targets on the stable toolchain.

use crate::process;
use crate::workspace;
use anyhow::Context;
use cargo_metadata::MetadataCommand;
use clap::Args;
use std::fs;
use std::io;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::vec;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The flags that cargo-fuzz passes too: coverage instrumentation, and all of Rust's checks.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
];

/// Fuzz one target, or all of them in turn.
///
/// Failing inputs are stored in fuzz/artifacts/TARGET, the corpus in fuzz/corpus/TARGET. To run a target on a stored
/// input, give its file.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// The target (default: all targets in turn).
    target: Option<String>,
    /// Run the target once, on this input.
    input: Option<PathBuf>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Find memory errors too (AddressSanitizer). Uses an unstable feature of the stable compiler.
    #[arg(long)]
    asan: bool,
    /// Print the names of the targets.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &FuzzArgs) -> anyhow::Result<ExitCode> {
    let mut targets = targets()?;
    if args.list {
        for target in targets {
            println!("{target}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(wanted) = &args.target {
        anyhow::ensure!(targets.contains(wanted), "unknown fuzz target {wanted}");
        targets = vec![wanted.clone()];
    }
    let programs = build(&targets, args.asan)?;
    let mut found = false;
    for target in &targets {
        let program = programs.join(target);
        if let Some(input) = &args.input {
            process::run(Command::new(program).arg(input))?;
        } else {
            found |= !fuzz(target, &program, args.seconds, FuzzOutput::All)?;
        }
    }
    Ok(if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs every target for `seconds`, as many at a time as this machine has processors. Returns for each target whether it
/// found nothing.
pub(crate) fn smoke(seconds: u32) -> anyhow::Result<Vec<(String, bool)>> {
    let targets = targets()?;
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let programs = build(&targets, false)?;
    let waiting = Mutex::new(targets.into_iter());
    let run_targets = || {
        let mut done = Vec::new();
        while let Some(target) = next(&waiting) {
            let program = programs.join(&target);
            let clean = fuzz(&target, &program, seconds, FuzzOutput::Findings)?;
            done.push((target, clean));
        }
        Ok(done)
    };
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let runners: Vec<_> = (0..at_a_time).map(|_| scope.spawn(run_targets)).collect();
        let results: anyhow::Result<Vec<_>> = runners.into_iter().map(joined).collect();
        Ok(results?.concat())
    })
}

/// The next target that nobody runs yet.
fn next(waiting: &Mutex<vec::IntoIter<String>>) -> Option<String> {
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .next()
}

/// The result of a thread. Its panic goes on in this one.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn manifest() -> PathBuf {
    workspace::root().join("fuzz/Cargo.toml")
}

fn targets() -> anyhow::Result<Vec<String>> {
    if !manifest().exists() {
        return Ok(Vec::new());
    }
    let metadata = MetadataCommand::new()
        .manifest_path(manifest())
        .no_deps()
        .exec()
        .context("cannot read the fuzz package's metadata")?;
    Ok(metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_bin())
        .map(|target| target.name.clone())
        .collect())
}

/// Builds the targets. Returns the directory of the programs.
fn build(targets: &[String], asan: bool) -> anyhow::Result<PathBuf> {
    let target_dir = workspace::root().join(if asan {
        "fuzz/target/asan"
    } else {
        "fuzz/target"
    });
    let mut flags = FLAGS.to_vec();
    let mut command = workspace::cargo();
    if asan {
        flags.push("-Zsanitizer=address");
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .args(["build", "--release", "--target", TARGET, "--manifest-path"])
        .arg(manifest())
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for target in targets {
        command.args(["--bin", target]);
    }
    process::run(&mut command)?;
    Ok(target_dir.join(TARGET).join("release"))
}

/// Which output of the fuzzing engine to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FuzzOutput {
    All,
    Findings,
}

/// Runs one target. Returns whether it found nothing.
fn fuzz(target: &str, program: &Path, seconds: u32, report: FuzzOutput) -> anyhow::Result<bool> {
    let dir = |kind: &str| -> anyhow::Result<PathBuf> {
        let dir = workspace::root().join("fuzz").join(kind).join(target);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    };
    let (corpus, artifacts) = (dir("corpus")?, dir("artifacts")?);
    println!("fuzz: {target} for {seconds} s");
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-rss_limit_mb=4096", "-timeout=60", "-verbosity=0"])
        .arg("-print_final_stats=1")
        .arg(&corpus);
    // Hand-written inputs, which some targets have.
    let seeds = workspace::root().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    // The output of the code under test is of no use.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut log = tempfile::tempfile().context("cannot make a file for the log")?;
    if report == FuzzOutput::Findings {
        command.stderr(log.try_clone()?);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", process::shown(&command)))?;
    if !status.success() {
        log.rewind()?;
        io::copy(&mut log, &mut io::stderr())?;
        println!(
            "fuzz: {target} FAILED ({status}); the input is in {}",
            artifacts.display()
        );
        println!("fuzz: to run it again: cargo xtask fuzz {target} FILE");
    }
    Ok(status.success())
}
