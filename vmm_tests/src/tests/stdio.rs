//! openvmm's own console, and life without a terminal.

use super::Context;
use anyhow::ensure;
use rustix::process::Signal;
use vmm_tests::Exit;
use vmm_tests::Stdio;

pub(super) fn console_commands(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").start()?;
    vm.wait_for_guest("ready")?;
    vm.command("no-such-command")?;
    vm.wait_for_output("no-such-command")?;
    vm.command("inspect / --json")?;
    vm.wait_for_output("{")?;
    vm.command("reset")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

pub(super) fn quit(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.linux("").start()?;
    vm.wait_for_guest("ready")?;
    vm.last_command("quit")?;
    vm.expect_halt(Exit::Quit, "quit")
}

/// `openvmm | head` and the like: the guest goes on without a listener.
pub(super) fn nobody_reads_the_output(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .linux("summary,poweroff")
        .stdio(Stdio::ClosedOutput)
        .start()?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    ensure!(
        !vm.errors().contains("panicked"),
        "{}",
        vm.failure("openvmm panicked")
    );
    Ok(())
}

pub(super) fn no_input(context: &Context) -> anyhow::Result<()> {
    // Without commands the guest would read its console; with no input there it has to be told.
    let mut vm = context
        .linux("echo:hello,poweroff")
        .stdio(Stdio::Null)
        .start()?;
    ensure!(vm.wait_for_guest("echo ")? == "hello");
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

pub(super) fn terminated_while_booting(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("").stdio(Stdio::Null).start()?;
    vm.wait_for_event("first_instruction", 1)?;
    vm.signal(Signal::TERM)?;
    vm.expect_halt(Exit::Signal(Signal::TERM.as_raw()), "signal")
}
