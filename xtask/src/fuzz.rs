//! `cargo xtask fuzz`: libFuzzer targets, on the stable toolchain.

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

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What cargo-fuzz passes too: coverage for the engine to steer by, and every check that Rust has.
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

/// Fuzz one target, or each for a while.
///
/// Findings are kept in fuzz/artifacts/TARGET, what was learned in fuzz/corpus/TARGET. To replay a
/// finding, name its file.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// The target; all of them one after the other if left out.
    target: Option<String>,
    /// Run once on this input instead.
    input: Option<PathBuf>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Find memory errors too (AddressSanitizer). Asks the stable compiler for an unstable feature.
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
        anyhow::ensure!(targets.contains(wanted), "there is no fuzz target {wanted}");
        targets = vec![wanted.clone()];
    }
    let programs = build(&targets, args.asan)?;
    let mut found = false;
    for target in &targets {
        let program = programs.join(target);
        if let Some(input) = &args.input {
            process::run(Command::new(program).arg(input))?;
        } else {
            found |= !fuzz(target, &program, args.seconds, Report::All)?;
        }
    }
    Ok(if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs every target for `seconds`. Returns each name with whether nothing was found.
pub(crate) fn smoke(seconds: u32) -> anyhow::Result<Vec<(String, bool)>> {
    let targets = targets()?;
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let programs = build(&targets, false)?;
    targets
        .into_iter()
        .map(|target| {
            let clean = fuzz(&target, &programs.join(&target), seconds, Report::Findings)?;
            Ok((target, clean))
        })
        .collect()
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

/// Builds the targets; returns the directory of the programs.
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

/// What to show of what the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    All,
    Findings,
}

/// Runs one target; returns whether nothing was found.
fn fuzz(target: &str, program: &Path, seconds: u32, report: Report) -> anyhow::Result<bool> {
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
    // Inputs that a person chose, when a target has some.
    let seeds = workspace::root().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    // What the code under test prints is of no use to anybody.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut log = tempfile::tempfile().context("cannot make a file for the log")?;
    if report == Report::Findings {
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
        println!("fuzz: to repeat it: cargo xtask fuzz {target} FILE");
    }
    Ok(status.success())
}
