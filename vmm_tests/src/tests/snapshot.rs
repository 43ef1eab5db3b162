//! Snapshots: a saved guest goes on in new processes, as often as one likes.

use super::Context;
use super::expect_error;
use anyhow::Context as _;
use anyhow::ensure;
use std::fs;
use std::path::Path;
use std::process::Command;
use vmm_tests::GuestSession;
use vmm_tests::OpenvmmExit;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// Saves the VM, and checks that its guest goes on.
fn save(vm: &mut Vm, dir: &Path) -> anyhow::Result<GuestSession> {
    // What the kernel complained of until now has nothing to do with this.
    vm.type_line("run dmesg -c >/dev/null")?;
    vm.wait_for_guest("run done")?;
    let session = GuestSession::ask(vm)?;
    vm.command(&format!("save-snapshot {}", dir.display()))?;
    vm.wait_for_event("snapshot_saved", 1)?;
    vm.wait_for_event("resumed", 1)?;
    let later = GuestSession::ask(vm)?;
    ensure!(
        later.continues(&session),
        "{}",
        vm.failure("the guest did not go on after it was saved")
    );
    Ok(session)
}

/// What a kernel says of hangs.
const HANGS: &str = "soft lockup|rcu_.*stall|hung task|BUG:";
/// What it says of clocks that disagree.
const CLOCKS: &str = "clocksource:.*unstable";

/// Checks that a restored guest goes on from where `session` was, and that nothing hangs or complains.
fn goes_on(vm: &mut Vm, session: &GuestSession) -> anyhow::Result<()> {
    goes_on_without(vm, session, &format!("{HANGS}|{CLOCKS}"))
}

/// The same if its kernel says nothing of the pattern `complaints`.
fn goes_on_without(vm: &mut Vm, session: &GuestSession, complaints: &str) -> anyhow::Result<()> {
    let first = GuestSession::ask(vm)?;
    // It counts ten times a second.
    vm.type_line("run sleep 1")?;
    vm.wait_for_guest("run done")?;
    let second = GuestSession::ask(vm)?;
    ensure!(
        first.continues(session) && second.continues(&first) && second.count > first.count,
        "{}",
        vm.failure(&format!("{session:?}, then {first:?}, then {second:?}"))
    );
    let count = format!("run say complaints $(dmesg | grep -cE '{complaints}')");
    let complaints = vm.ask(&count, "complaints ")?;
    ensure!(complaints == "0", "{}", vm.failure("the kernel complains"));
    Ok(())
}

fn restored(context: &Context, dir: &Path) -> VmBuilder {
    context.openvmm().restored(dir)
}

/// Digests of a snapshot's files, as the program that made them sees them.
fn verify(context: &Context, dir: &Path) -> anyhow::Result<()> {
    let output = Command::new(&context.environment.openvmm)
        .args(["snapshot", "verify"])
        .arg(dir)
        .output()
        .context("cannot run openvmm")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

pub(super) fn linux_three_times(context: &Context) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("snapshot");
    let mut vm = context.linux("").arg("--virtio-rng").boot()?;
    let session = save(&mut vm, &dir)?;
    vm.kill()?;

    let mut one = restored(context, &dir).start()?;
    let mut two = restored(context, &dir).start()?;
    goes_on(&mut one, &session)?;
    goes_on(&mut two, &session)?;
    // A second generation, from one of the copies; and the first snapshot is what it was.
    let next = folder.path().join("next");
    let session = save(&mut one, &next)?;
    one.power_off()?;
    two.power_off()?;
    verify(context, &dir)?;
    let mut three = restored(context, &next).start()?;
    goes_on(&mut three, &session)?;
    // The machine is complete: it can be reset.
    three.command("reset")?;
    three.wait_for_guest("ready")?;
    three.power_off()
}

pub(super) fn four_processors(context: &Context) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("snapshot");
    let mut vm = context.linux("").args(["-p", "4"]).boot()?;
    let session = save(&mut vm, &dir)?;
    vm.kill()?;
    let mut vm = restored(context, &dir).start()?;
    goes_on(&mut vm, &session)?;
    vm.power_off()
}

pub(super) fn uefi(context: &Context) -> anyhow::Result<()> {
    // Debian 12's kernel for clouds has no driver of the generation ID.
    let context = &context.with_kernel_13();
    let machine = context.uefi()?;
    let dir = machine.file("snapshot");
    let mut vm = machine.linux("").boot()?;
    let session = save(&mut vm, &dir)?;
    let variables = fs::read(machine.variables())?;
    vm.kill()?;

    let mut vm = restored(context, &dir).start()?;
    // Debian 13's kernel finds that the TSC and another clock disagree after a restore in the lab.
    match context.environment.emulated {
        true => goes_on_without(&mut vm, &session, HANGS)?,
        false => goes_on(&mut vm, &session)?,
    }
    let reseeded = vm.ask(
        "run say reseeded $(dmesg | grep -c 'crng reseeded due to virtual machine fork')",
        "reseeded ",
    )?;
    ensure!(
        reseeded == "1",
        "{}",
        vm.failure("the guest does not know that it is a copy")
    );
    // Its variables are its own, and it starts from its own firmware.
    vm.type_line("efivar create copy mine")?;
    vm.ask("efivar get copy", "efivar copy mine")?;
    vm.command("reset")?;
    vm.wait_for_guest("ready")?;
    vm.ask("efivar get copy", "efivar copy mine")?;
    vm.power_off()?;
    ensure!(
        fs::read(machine.variables())? == variables,
        "the copy wrote to the original's variables"
    );
    Ok(())
}

pub(super) fn disk(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    let disk = machine.add_empty_disk("DATA", 16 << 20)?;
    let dir = machine.file("snapshot");
    let mut vm = context
        .linux("")
        .arg("--disk")
        .arg(disk.argument())
        .boot()?;
    let session = save(&mut vm, &dir)?;
    vm.power_off()?;
    let base = format!("memdiff:{}", disk.path().display());
    let clone = || restored(context, &dir).args(["--disk", &base]).start();
    let (mut one, mut two) = (clone()?, clone()?);
    for vm in [&mut one, &mut two] {
        goes_on(vm, &session)?;
        vm.type_line("disk write vda 7 0 1")?;
        vm.wait_for_guest("disk write 0")?;
        vm.power_off()?;
    }
    fs::OpenOptions::new()
        .write(true)
        .open(disk.path())
        .and_then(|file| file.set_len(32 << 20))?;
    let vm = restored(context, &dir).start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "disk0")
}

pub(super) fn refused(context: &Context) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("snapshot");
    let vm = restored(context, &dir).start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "no snapshot at")?;
    let mut vm = context.linux("").boot()?;
    vm.command(&format!("save-snapshot {}", dir.display()))?;
    vm.wait_for_event("snapshot_saved", 1)?;
    vm.kill()?;
    let state = dir.join("state.bin");
    let mut bytes = fs::read(&state)?;
    bytes[100] ^= 1;
    fs::write(&state, bytes)?;
    let vm = restored(context, &dir).start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "state.bin is damaged")?;
    let vm = restored(context, &dir).arg("--hibernation=on").start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "--hibernation")
}
