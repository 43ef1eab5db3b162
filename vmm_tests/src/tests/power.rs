//! Guests power off, reset, panic and shut down.

use super::Context;
use anyhow::ensure;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;
use vmm_tests::payload;

pub(super) fn off_from_inside(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("poweroff").stdio(Stdio::Null).start()?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn button(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").boot()?;
    vm.command("shutdown")?;
    vm.wait_for_guest("power button")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn two_reboots_from_inside(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").arg("-p").arg("2").start()?;
    for boot in 1..=2 {
        vm.wait_for_guest("ready")?;
        vm.type_line("reboot")?;
        vm.wait_for_event("reset", boot)?;
    }
    vm.wait_for_guest("ready")?;
    vm.power_off()
}

pub(super) fn reset_ends_when_asked(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("reboot").arg("--halt-on-reset").start()?;
    vm.expect_halt(OpenvmmExit::GuestReset, "reset")
}

pub(super) fn panic(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("panic").start()?;
    vm.expect_halt(OpenvmmExit::GuestPanic, "guest_panic")
}

pub(super) fn triple_fault(context: &Context) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("triple_fault");
    std::fs::write(&path, payload::triple_fault())?;
    let vm = context.openvmm().arg("--kernel").arg(&path).start()?;
    vm.expect_halt(OpenvmmExit::TripleFault, "triple_fault")?;
    let errors = vm.errors();
    ensure!(errors.contains("rip="), "{}", vm.failure("no registers"));
    // On AMD processors KVM has reset them, and openvmm must say so.
    ensure!(
        errors.contains("rip=000000000000fff0") == errors.contains("registers after a reset"),
        "{}",
        vm.failure("the note about the registers is missing or wrong")
    );
    Ok(())
}
