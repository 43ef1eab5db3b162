//! The host's firmware is updated while a guest hibernates: once the guest is lost, and once it comes back.

use crate::timeline::Timeline;
use anyhow::Context;
use anyhow::ensure;
use rustix::fs::SeekFrom;
use rustix::fs::seek;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use vmm_tests::Environment;
use vmm_tests::Exit;
use vmm_tests::HibernationStatus;
use vmm_tests::Session;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// A guest that takes longer than this to do what it should does not do it.
const LIMIT: Duration = Duration::from_secs(300);

/// Room for what the guest has in memory.
const SWAP: u64 = 1 << 30;

/// What Linux says when the firmware's memory map is another than in its image.
const LINUX_REFUSES: &str = "Image mismatch: architecture specific data";

pub(crate) fn tell(environment: &Environment, timeline: &Timeline) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(environment, LIMIT)?;
    let disk = machine.add_empty_disk("SWAP", SWAP)?;
    machine.add_vmgs();

    timeline.heading("A guest hibernates");
    timeline.host("starts openvmm with OVMF (4 MiB build), Debian's kernel, and a store for the guest's firmware");
    let mut vm = preserving(&machine).start()?;
    let kept = digest(&vm, "hibernation_captured")?;
    timeline.host(&format!("the firmware {kept} is kept in the store"));
    vm.wait_for_guest("ready")?;
    let before = Session::ask(&mut vm)?;
    show(timeline, "is up", &before);
    timeline.guest("hibernates");
    Session::hibernate(&mut vm)?;
    timeline.host("openvmm has ended with status 7: hibernated");
    let twin = machine.file("twin");
    copy_sparse(disk.path(), &twin).context("cannot copy the guest's disk")?;
    timeline.host("makes a copy of the guest's disk, its twin");

    timeline.heading("The host's firmware is updated; its twin is started without what was kept");
    machine.update_firmware(&environment.ovmf_2m)?;
    timeline.host("has OVMF's 2 MiB build from now on, which lays memory out differently");
    lose(environment, &machine, &twin, &before, timeline)?;

    timeline.heading("The guest itself is started, with what was kept");
    let status = HibernationStatus::of(environment, &machine.vmgs())?;
    ensure!(status.next_start == "resume", "{status:?}");
    timeline.host(&format!("openvmm hibernation status: {}", status.reason));
    let mut vm = preserving(&machine).start()?;
    let restored = digest(&vm, "hibernation_restored")?;
    timeline.host(&format!("the firmware {restored} is put back"));
    ensure!(restored == kept, "that is other firmware");
    let after = before.resumed(&mut vm)?;
    show(timeline, "is back", &after);
    vm.wait_for_event("hibernation_consumed", 1)?;
    timeline.host("the guest has taken over, and its token is taken out of the store");
    power_off(&mut vm, timeline)?;

    timeline.heading("After a clean power off");
    let vm = preserving(&machine).start()?;
    let updated = digest(&vm, "hibernation_captured")?;
    ensure!(
        updated != kept,
        "the host's new firmware is not what is kept"
    );
    vm.wait_for_event("first_instruction", 1)?;
    timeline.host(&format!("the new firmware {updated} runs, and is kept"));
    drop(vm);

    timeline.heading("Verdict");
    timeline.verdict("without what was kept, the session was lost");
    timeline.verdict(&format!(
        "with it, the session {} went on: its counter from {} to {}, in process {}",
        after.boot_id, before.count, after.count, after.counter_pid
    ));
    Ok(())
}

fn preserving(machine: &UefiMachine) -> VmBuilder {
    machine.linux("").args(["--hibernation", "on"])
}

/// The twin wakes on the host's firmware, or rather does not.
fn lose(
    environment: &Environment,
    machine: &UefiMachine,
    disk: &Path,
    before: &Session,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    timeline.host("starts openvmm with the twin, and no store");
    let mut argument = std::ffi::OsString::from("file:");
    argument.push(disk);
    argument.push(",serial=SWAP");
    let mut vm = VmBuilder::new(environment, LIMIT)
        .arg("--uefi-firmware")
        .arg(&environment.ovmf_2m.code)
        .arg("--uefi-vars")
        .arg(machine.variables())
        .arg("--disk")
        .arg(argument)
        .kernel(environment, "")
        .args(["--hibernation", "on"])
        .start()?;
    let (topic, _) = vm.wait_for_any(&["resumed", "not resumed", "ready"])?;
    ensure!(topic == "not resumed", "the twin came back");
    vm.wait_for_output(LINUX_REFUSES)?;
    timeline.guest(&format!("the kernel says: {LINUX_REFUSES}"));
    vm.wait_for_guest("ready")?;
    let fresh = Session::ask(&mut vm)?;
    ensure!(fresh.boot_id != before.boot_id, "the twin came back");
    show(timeline, "has lost its session and started anew", &fresh);
    power_off(&mut vm, timeline)
}

fn power_off(vm: &mut Vm, timeline: &Timeline) -> anyhow::Result<()> {
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    timeline.guest("has powered off");
    Ok(())
}

/// The beginning of the digest of the firmware that an event speaks of.
fn digest(vm: &Vm, event: &str) -> anyhow::Result<String> {
    let event = vm.wait_for_event(event, 1)?;
    let digest = event.text("image_digest").context("no digest is named")?;
    Ok(digest.chars().take(12).collect())
}

fn show(timeline: &Timeline, what: &str, session: &Session) {
    timeline.guest(&format!(
        "{what}: boot id {}, token {}, counter {} at {}",
        session.boot_id, session.token, session.counter_pid, session.count
    ));
}

/// Copies a file of which most was never written, and leaves the copy so.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let len = from.metadata()?.len();
    let mut to = File::create(to)?;
    to.set_len(len)?;
    let mut at = 0;
    loop {
        let start = match seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Behind the last that was written.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        at = seek(&from, SeekFrom::Hole(start))?;
        for file in [&from, &to] {
            seek(file, SeekFrom::Start(start))?;
        }
        io::copy(&mut (&mut from).take(at - start), &mut to)?;
    }
}
