//! The serial port loses no output.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;

// Every byte is at least one exit: 10 MiB take seconds on a real machine, and 15 minutes or more on an emulated one. So on
// an emulated machine these tests print less; `cargo xtask soak flood 10` prints 10 MiB there too.

pub(super) fn linux_flood(context: &Context) -> anyhow::Result<()> {
    let lines: u64 = if context.environment.emulated {
        8 << 10
    } else {
        640 << 10
    };
    let vm = context.linux(&format!("flood:{lines},poweroff")).start()?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    let output = String::from_utf8(vm.output()).context("the output is not UTF-8")?;
    let (_, flood) = output
        .split_once("vmtest: flood begin")
        .with_context(|| vm.failure("the begin of the flood is missing"))?;
    let (flood, _) = flood
        .split_once("vmtest: flood end")
        .with_context(|| vm.failure("the end of the flood is missing"))?;
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
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
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
