//! openvmm's console, and openvmm without a terminal.

use super::Context;
use anyhow::ensure;
use rustix::process::Signal;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;

pub(super) fn console_commands(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").boot()?;
    vm.command("no-such-command")?;
    vm.wait_for_output("no-such-command")?;
    vm.command("inspect / --json")?;
    vm.wait_for_output("{")?;
    vm.command("reset")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    vm.power_off()
}

pub(super) fn quit(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").boot()?;
    vm.last_command("quit")?;
    vm.expect_halt(OpenvmmExit::Quit, "quit")
}

/// As in `openvmm | head`: the guest keeps running when nobody reads its output.
pub(super) fn nobody_reads_the_output(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .linux("summary,poweroff")
        .stdio(Stdio::ClosedOutput)
        .start()?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    ensure!(
        !vm.errors().contains("panicked"),
        "{}",
        vm.failure("openvmm panicked")
    );
    Ok(())
}

/// The explanation of how the guest ended goes nowhere, and the exit code is what it would be.
pub(super) fn nobody_reads_the_errors(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .linux("panic")
        .stdio(Stdio::ClosedOutputAndErrors)
        .start()?;
    vm.expect_halt(OpenvmmExit::GuestPanic, "guest_panic")
}

pub(super) fn no_input(context: &Context) -> anyhow::Result<()> {
    // The guest has no console input, so its commands are on the kernel's command line.
    let mut vm = context
        .linux("echo:hello,poweroff")
        .stdio(Stdio::Null)
        .start()?;
    ensure!(vm.wait_for_guest("echo ")? == "hello");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn terminated_while_booting(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("").stdio(Stdio::Null).start()?;
    vm.wait_for_event("first_instruction", 1)?;
    vm.signal(Signal::TERM)?;
    vm.expect_halt(OpenvmmExit::Signal(Signal::TERM.as_raw()), "signal")
}
