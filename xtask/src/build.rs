//! Builds workspace packages statically, in `target/lab`, for the lab and for measurements.

use crate::process;
use crate::workspace;
use anyhow::Context;
use cargo_metadata::Message;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The name of its target in the package.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Builds the binaries of `packages`.
pub(crate) fn binaries(packages: &[String]) -> anyhow::Result<Vec<Program>> {
    let mut command = static_cargo("build")?;
    command.arg("--bins");
    for package in packages {
        command.args(["--package", package]);
    }
    programs(command)
}

/// Builds the test programs of `packages`.
pub(crate) fn tests(packages: &[String]) -> anyhow::Result<Vec<Program>> {
    let mut command = static_cargo("test")?;
    command.arg("--no-run");
    for package in packages {
        command.args(["--package", package]);
    }
    programs(command)
}

/// A test program of a package that is built only on demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatedTest {
    /// The package.
    pub(crate) package: &'static str,
    /// The feature that the test needs.
    pub(crate) feature: &'static str,
    /// The test's name, which is also the program's.
    pub(crate) name: &'static str,
}

/// Builds a gated test.
pub(crate) fn gated_test(test: GatedTest) -> anyhow::Result<Vec<Program>> {
    let mut command = static_cargo("test")?;
    command.args(["--no-run", "--package", test.package]).args([
        "--features",
        test.feature,
        "--test",
        test.name,
    ]);
    programs(command)
}

/// The test firmware's package and program.
const TEST_FIRMWARE: &str = "guest_test_firmware";

/// Instructions that not every KVM emulates in the guest's kernel mode.
const WITHOUT_FLOATING_POINT: &str =
    "-mmx,-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,+soft-float";

/// Builds the program of the test firmware, and returns its bytes.
///
/// There may be no toolchain for a target without an operating system, so it is built for this one, without what such a
/// program cannot use. The compiler warns of that.
pub(crate) fn test_firmware() -> anyhow::Result<Vec<u8>> {
    let target_dir = workspace::metadata()?.target_directory.join("firmware");
    let mut command = workspace::cargo();
    command
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["--target-dir", target_dir.as_str()])
        .args(["--package", TEST_FIRMWARE])
        .env(
            "RUSTFLAGS",
            format!("-C target-feature={WITHOUT_FLOATING_POINT} -C relocation-model=static"),
        )
        .stdin(Stdio::null());
    let shown = process::shown(&command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{shown} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let path = target_dir.join(TARGET).join("release").join(TEST_FIRMWARE);
    std::fs::read(&path).with_context(|| format!("cannot read {path}"))
}

fn static_cargo(subcommand: &str) -> anyhow::Result<Command> {
    let target_dir = workspace::metadata()?.target_directory.join("lab");
    let mut command = workspace::cargo();
    command
        .args([subcommand, "--release", "--target", TARGET])
        .args(["--target-dir", target_dir.as_str()])
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    Ok(command)
}

fn programs(mut command: Command) -> anyhow::Result<Vec<Program>> {
    let shown = process::shown(&command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) =
            message.with_context(|| format!("cannot read the messages of {shown}"))?
            && let Some(executable) = artifact.executable
        {
            programs.push(Program {
                name: artifact.target.name,
                path: executable.into_std_path_buf(),
            });
        }
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{shown} ended with {status}");
    Ok(programs)
}
