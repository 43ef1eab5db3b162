//! A paused guest stands still, and goes on as if nothing had been.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::time::Duration;
use std::time::Instant;
use vmm_tests::Exit;
use vmm_tests::Vm;

pub(super) fn two_seconds(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").start()?;
    vm.wait_for_guest("ready")?;
    let started = Instant::now();
    let before = uptime(&mut vm)?;

    vm.command("pause")?;
    vm.wait_for_event("paused", 1)?;
    let silent_from = vm.output().len();
    // The one thing to wait for here is time itself.
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
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

/// How long the guest thinks it has been up.
fn uptime(vm: &mut Vm) -> anyhow::Result<f64> {
    vm.type_line("clock")?;
    let clock = vm.wait_for_guest("clock ")?;
    let uptime = clock.split(' ').next().unwrap_or_default();
    uptime
        .parse()
        .with_context(|| format!("the guest's clock says {clock:?}"))
}
