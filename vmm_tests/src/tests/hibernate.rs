//! A guest that hibernates goes on where it was.

use super::Context;
use super::network;
use anyhow::Context as _;
use anyhow::ensure;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use vmm_tests::Exit;
use vmm_tests::Session;
use vmm_tests::Tap;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// Room for what a guest of 512 MiB has in memory.
const SWAP: u64 = 1 << 30;

/// A machine with a disk to hibernate to.
fn machine(context: &Context) -> anyhow::Result<UefiMachine> {
    let mut machine = context.uefi()?;
    machine.add_empty_disk("SWAP", SWAP)?;
    Ok(machine)
}

/// Its command line.
fn hibernating(machine: &UefiMachine) -> VmBuilder {
    machine.linux("").args(["--hibernation", "on"])
}

/// Starts a guest, and has it ready.
fn ready(builder: &VmBuilder) -> anyhow::Result<Vm> {
    let mut vm = builder.start()?;
    vm.wait_for_guest("ready")?;
    Ok(vm)
}

/// The guest's time has gone on while it slept, to within what two clocks that tell seconds can differ.
///
/// In an emulated machine, whose KVM has no stable TSC, Linux comes out of hibernation 10 to 30 seconds ahead, on QEMU as
/// well.
fn check_clock(vm: &mut Vm, emulated: bool) -> anyhow::Result<()> {
    const SLACK: u64 = 5;
    const EMULATED_SLACK: u64 = 120;
    let clock = vm.wait_for_guest("clock ")?;
    let (_, guest) = vmm_tests::parse_clock(&clock)
        .with_context(|| vm.failure(&format!("the guest's clock says {clock:?}")))?;
    let host = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let ahead = if emulated { EMULATED_SLACK } else { SLACK };
    ensure!(
        (host.saturating_sub(SLACK)..=host + ahead).contains(&guest),
        "the guest's clock says {guest}, the host's {host}"
    );
    Ok(())
}

/// Asks until the counter has gone on.
fn expect_counting(vm: &mut Vm, session: &Session) -> anyhow::Result<Session> {
    loop {
        // Ends with the VM's time limit at the latest.
        let now = Session::ask(vm)?;
        ensure!(now.continues(session), "{now:?} is not {session:?}");
        if now.count > session.count {
            return Ok(now);
        }
    }
}

pub(super) fn four_processors(context: &Context) -> anyhow::Result<()> {
    let machine = machine(context)?;
    let builder = hibernating(&machine).args(["-p", "4"]);
    let mut vm = ready(&builder)?;
    let session = Session::ask(&mut vm)?;
    Session::hibernate(&mut vm)?;
    let mut vm = builder.start()?;
    let session = session.resumed(&mut vm)?;
    check_clock(&mut vm, context.environment.emulated)?;
    expect_counting(&mut vm, &session)?;
    ensure!(vm.ask("cpus", "cpus ")? == "4");
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

/// The session goes on with its disk, entropy source and network in working order.
pub(super) fn devices_work_afterwards(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    machine.add_empty_disk("DATA", 16 << 20)?;
    let tap = Tap::new();
    let builder = hibernating(&machine).args(["-p", "2", "--virtio-rng", "--net", &tap.argument()]);
    let mut vm = ready(&builder)?;
    tap.bring_up()?;
    network::exchange(&mut vm, &tap)?;
    let written = vm.ask("disk write vdb 9 0 2", "disk write ")?;
    ensure!(written.starts_with("0 "), "writing: {written}");
    let session = Session::ask(&mut vm)?;
    Session::hibernate(&mut vm)?;

    let mut vm = builder.start()?;
    session.resumed(&mut vm)?;
    tap.bring_up()?;
    let read = vm.ask("disk read vdb 0 2", "disk read ")?;
    ensure!(read == written, "{read} was read, {written} written");
    let written = vm.ask("disk write vdb 10 2 2", "disk write ")?;
    ensure!(written.starts_with("0 "), "writing: {written}");
    network::transfer(&mut vm, &tap)?;
    vm.type_line("run head -c 64 /dev/hwrng | wc -c | grep -qx 64")?;
    vm.wait_for_guest("run done")?;
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

/// The guest's reset after it resumed starts a new session, and not the old one again.
pub(super) fn reset_after_resume(context: &Context) -> anyhow::Result<()> {
    let machine = machine(context)?;
    let builder = hibernating(&machine);
    let mut vm = ready(&builder)?;
    let session = Session::ask(&mut vm)?;
    Session::hibernate(&mut vm)?;
    let mut vm = builder.start()?;
    session.resumed(&mut vm)?;
    vm.type_line("reboot")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    let fresh = Session::ask(&mut vm)?;
    ensure!(fresh.boot_id != session.boot_id, "the session came back");
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

/// Without hibernation the guest is not told of a way to have the platform take part in it.
pub(super) fn off(context: &Context) -> anyhow::Result<()> {
    for arguments in [&["--hibernation", "off"][..], &[]] {
        let mut vm = context.linux("states,poweroff").args(arguments).start()?;
        let ways = vm.wait_for_guest("hibernation ")?;
        ensure!(
            !ways.contains("platform"),
            "the guest may hibernate by {ways}"
        );
        vm.expect_halt(Exit::PoweredOff, "power_off")?;
    }
    Ok(())
}

/// What hibernation needs preserving for: on firmware with another view of the machine the session is lost, and the
/// guest says so.
pub(super) fn lost_on_other_firmware(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = ready(&hibernating(&machine))?;
    let session = Session::ask(&mut vm)?;
    Session::hibernate(&mut vm)?;
    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = hibernating(&machine).start()?;
    let (topic, _) = vm.wait_for_any(&["resumed", "not resumed", "ready"])?;
    ensure!(topic == "not resumed", "{}", vm.failure(topic));
    vm.wait_for_output("Image mismatch: architecture specific data")?;
    vm.wait_for_guest("ready")?;
    let fresh = Session::ask(&mut vm)?;
    ensure!(fresh.boot_id != session.boot_id, "the session came back");
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}
