//! A paused guest stops, and continues after resume without noticing.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::time::Duration;
use std::time::Instant;
use vmm_tests::Vm;

pub(super) fn two_seconds(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").boot()?;
    let started = Instant::now();
    let before = uptime(&mut vm)?;

    vm.command("pause")?;
    vm.wait_for_event("paused", 1)?;
    let silent_from = vm.output().len();
    // This test has to wait for time to pass.
    std::thread::sleep(Duration::from_secs(2));
    ensure!(
        !String::from_utf8_lossy(&vm.output()[silent_from..]).contains("vmtest"),
        "{}",
        vm.failure("the paused guest printed something")
    );
    vm.command("resume")?;
    vm.wait_for_event("resumed", 1)?;

    let after = uptime(&mut vm)?;
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(
        after > before && after - before < elapsed + 1.0,
        "the guest's clock went from {before} to {after} in {elapsed}"
    );
    vm.type_line("run dmesg | grep -iE 'stall|lockup|unstable|hung' && false || true")?;
    vm.wait_for_guest("run done")?;
    let output = String::from_utf8_lossy(&vm.output()[silent_from..]).into_owned();
    for complaint in ["soft lockup", "rcu_", "clocksource:"] {
        ensure!(!output.contains(complaint), "{}", vm.failure(complaint));
    }
    vm.power_off()
}

/// The guest's uptime in seconds, by its own clock.
fn uptime(vm: &mut Vm) -> anyhow::Result<f64> {
    vm.type_line("clock")?;
    let clock = vm.wait_for_guest("clock ")?;
    let uptime = clock.split(' ').next().unwrap_or_default();
    uptime
        .parse()
        .with_context(|| format!("the guest's clock says {clock:?}"))
}
