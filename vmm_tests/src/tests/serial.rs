//! The serial port loses nothing.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use vmm_tests::Exit;
use vmm_tests::Stdio;

// Every byte is at least one exit, which makes 10 MiB a matter of seconds on a real machine and of a quarter of
// an hour or more on an emulated one: there, the same path is driven with less, and `cargo xtask soak flood 10` is for
// who has the time.

pub(super) fn linux_flood(context: &Context) -> anyhow::Result<()> {
    let lines: u64 = if context.environment.emulated {
        8 << 10
    } else {
        640 << 10
    };
    let vm = context.linux(&format!("flood:{lines},poweroff")).start()?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    let output = String::from_utf8(vm.output()).context("the output is no text")?;
    let (_, flood) = output
        .split_once("vmtest: flood begin")
        .with_context(|| vm.failure("no begin"))?;
    let (flood, _) = flood
        .split_once("vmtest: flood end")
        .with_context(|| vm.failure("no end"))?;
    let mut numbers = flood.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in 1..=lines {
        let expected = (100_000_000_000_000 + line).to_string();
        ensure!(
            numbers.next() == Some(&expected),
            "line {line} of {lines} is missing or damaged"
        );
    }
    ensure!(numbers.next().is_none(), "there are more lines than sent");
    Ok(())
}

pub(super) fn bare_flood(context: &Context) -> anyhow::Result<()> {
    let bytes = if context.environment.emulated {
        1 << 20
    } else {
        10 << 20
    };
    vmm_tests::bare_flood(context.openvmm(), bytes)
}

pub(super) fn to_a_file(context: &Context) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("com1");
    let vm = context
        .linux("uname,poweroff")
        .arg("--com1")
        .arg(format!("file={}", file.display()))
        .stdio(Stdio::Null)
        .start()?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    let written = std::fs::read(&file)?;
    ensure!(
        String::from_utf8_lossy(&written).contains("vmtest: uname Linux"),
        "{}",
        vm.failure("the file does not hold the output")
    );
    ensure!(
        !String::from_utf8_lossy(&vm.output()).contains("vmtest"),
        "{}",
        vm.failure("the output went to standard output too")
    );
    Ok(())
}
