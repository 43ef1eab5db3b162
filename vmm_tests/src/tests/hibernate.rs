//! A guest that hibernates resumes its session.

use super::Context;
use super::network;
use anyhow::Context as _;
use anyhow::ensure;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use vmm_tests::GuestSession;
use vmm_tests::HostTap;
use vmm_tests::OpenvmmExit;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;

/// A machine with a disk to hibernate to.
fn machine(context: &Context) -> anyhow::Result<UefiMachine> {
    let mut machine = context.uefi()?;
    machine.add_swap_disk()?;
    Ok(machine)
}

/// Checks that the guest's clock shows the host's time after a resume, within the error of two clocks with a resolution of
/// one second.
///
/// On an emulated machine, whose KVM has no stable TSC, Linux's clock is 10 to 30 seconds ahead after a resume, under QEMU
/// too.
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

/// Asks the guest until the counter has increased.
fn expect_counting(vm: &mut Vm, session: &GuestSession) -> anyhow::Result<GuestSession> {
    loop {
        // The VM's time limit ends the loop.
        let now = GuestSession::ask(vm)?;
        ensure!(now.continues(session), "{now:?} is not {session:?}");
        if now.count > session.count {
            return Ok(now);
        }
    }
}

pub(super) fn four_processors(context: &Context) -> anyhow::Result<()> {
    let machine = machine(context)?;
    let builder = machine.hibernating().args(["-p", "4"]);
    let mut vm = builder.boot()?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;
    let mut vm = builder.start()?;
    let session = session.resumed(&mut vm)?;
    check_clock(&mut vm, context.environment.emulated)?;
    expect_counting(&mut vm, &session)?;
    ensure!(vm.ask("cpus", "cpus ")? == "4");
    vm.power_off()
}

/// After a resume, disk, entropy source and network work.
pub(super) fn devices_work_afterwards(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    machine.add_empty_disk("DATA", 16 << 20)?;
    let tap = HostTap::new();
    let builder = machine
        .hibernating()
        .args(["-p", "2", "--virtio-rng", "--net", &tap.argument()]);
    let mut vm = builder.boot()?;
    tap.bring_up()?;
    network::exchange(&mut vm, &tap)?;
    let written = vm.ask("disk write vdb 9 0 2", "disk write ")?;
    ensure!(written.starts_with("0 "), "writing: {written}");
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;

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
    vm.power_off()
}

/// A reset after a resume starts a new session; the old one is not resumed again.
pub(super) fn reset_after_resume(context: &Context) -> anyhow::Result<()> {
    let machine = machine(context)?;
    let builder = machine.hibernating();
    let mut vm = builder.boot()?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;
    let mut vm = builder.start()?;
    session.resumed(&mut vm)?;
    vm.type_line("reboot")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    let fresh = GuestSession::ask(&mut vm)?;
    ensure!(
        fresh.boot_id != session.boot_id,
        "the old session was resumed again"
    );
    vm.power_off()
}

/// Without `--hibernation on`, the guest is not offered the hibernation mode `platform`.
pub(super) fn off(context: &Context) -> anyhow::Result<()> {
    for arguments in [&["--hibernation", "off"][..], &[]] {
        let mut vm = context.linux("states,poweroff").args(arguments).start()?;
        let ways = vm.wait_for_guest("hibernation ")?;
        ensure!(
            !ways.contains("platform"),
            "the guest may hibernate by {ways}"
        );
        vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    }
    Ok(())
}

/// Why the firmware has to be stored: on firmware with another memory map the session is lost, and the guest reports it.
pub(super) fn lost_on_other_firmware(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = machine.hibernating().boot()?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;
    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = machine.hibernating().start()?;
    let (topic, _) = vm.wait_for_any(&["resumed", "not resumed", "ready"])?;
    ensure!(topic == "not resumed", "{}", vm.failure(topic));
    vm.wait_for_output("Image mismatch: architecture specific data")?;
    vm.wait_for_guest("ready")?;
    let fresh = GuestSession::ask(&mut vm)?;
    ensure!(
        fresh.boot_id != session.boot_id,
        "the old session was resumed again"
    );
    vm.power_off()
}
