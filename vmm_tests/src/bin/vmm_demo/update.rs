//! The host's firmware is updated while a guest is hibernated. A copy of the guest loses its session on the new firmware; the
//! guest itself resumes on its old firmware.

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
use vmm_tests::GuestSession;
use vmm_tests::HibernationStatus;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// The time limit for each openvmm.
const LIMIT: Duration = Duration::from_secs(300);

/// What Linux prints if the firmware's memory map is not the one in the hibernation image.
const LINUX_REFUSES: &str = "Image mismatch: architecture specific data";

pub(crate) fn run(environment: &Environment, timeline: &Timeline) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(environment, LIMIT)?;
    let disk = machine.add_swap_disk()?;
    machine.add_vmgs();

    timeline.heading("A guest hibernates");
    timeline.host("starts openvmm with OVMF (4 MiB build), Debian's kernel, and a VMGS file for the guest's firmware");
    let mut vm = machine.hibernating().start()?;
    let kept = digest(&vm, "hibernation_captured")?;
    timeline.host(&format!("the firmware {kept} is stored in the VMGS file"));
    vm.wait_for_guest("ready")?;
    let before = GuestSession::ask(&mut vm)?;
    timeline.session("is up", &before);
    timeline.guest("hibernates");
    GuestSession::hibernate(&mut vm)?;
    timeline.host("openvmm has ended with exit code 7: hibernated");
    let copy = machine.file("copy");
    copy_sparse(disk.path(), &copy).context("cannot copy the guest's disk")?;
    timeline.host("copies the guest's disk, for a second guest");

    timeline.heading(
        "The host's firmware is updated; the second guest is started without the stored firmware",
    );
    machine.update_firmware(&environment.ovmf_2m)?;
    timeline.host("has OVMF's 2 MiB build from now on, which has another memory map");
    lose(environment, &machine, &copy, &before, timeline)?;

    timeline.heading("The guest itself is started, with the stored firmware");
    let status = HibernationStatus::of(environment, &machine.vmgs())?;
    ensure!(status.next_start == "resume", "{status:?}");
    timeline.host(&format!("openvmm hibernation status: {}", status.reason));
    let mut vm = machine.hibernating().start()?;
    let restored = digest(&vm, "hibernation_restored")?;
    timeline.host(&format!("the firmware {restored} is restored"));
    ensure!(restored == kept, "another firmware was restored");
    let after = before.resumed(&mut vm)?;
    timeline.session("is resumed", &after);
    vm.wait_for_event("hibernation_consumed", 1)?;
    timeline.host("the guest has resumed, and its token is deleted from the VMGS file");
    power_off(&mut vm, timeline)?;

    timeline.heading("After a clean power off");
    let vm = machine.hibernating().start()?;
    let updated = digest(&vm, "hibernation_captured")?;
    ensure!(updated != kept, "the host's new firmware was not stored");
    vm.wait_for_event("first_instruction", 1)?;
    timeline.host(&format!("the new firmware {updated} runs and is stored"));
    drop(vm);

    timeline.heading("Result");
    timeline.result("without the stored firmware, the session was lost");
    timeline.result(&format!(
        "with it, the session {} continued: its counter went from {} to {}, in process {}",
        after.boot_id, before.count, after.count, after.counter_pid
    ));
    Ok(())
}

/// Starts the second guest on the host's new firmware, where its session is lost.
fn lose(
    environment: &Environment,
    machine: &UefiMachine,
    disk: &Path,
    before: &GuestSession,
    timeline: &Timeline,
) -> anyhow::Result<()> {
    timeline.host("starts openvmm with the second guest, without a VMGS file");
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
    ensure!(
        topic == "not resumed",
        "the second guest resumed its session"
    );
    vm.wait_for_output(LINUX_REFUSES)?;
    timeline.guest(&format!("the kernel prints: {LINUX_REFUSES}"));
    vm.wait_for_guest("ready")?;
    let fresh = GuestSession::ask(&mut vm)?;
    ensure!(
        fresh.boot_id != before.boot_id,
        "the second guest resumed its session"
    );
    timeline.session("has lost its session and booted again", &fresh);
    power_off(&mut vm, timeline)
}

fn power_off(vm: &mut Vm, timeline: &Timeline) -> anyhow::Result<()> {
    vm.power_off()?;
    timeline.guest("has powered off");
    Ok(())
}

/// Waits for an event. Returns the start of the digest of the firmware that it names.
fn digest(vm: &Vm, event: &str) -> anyhow::Result<String> {
    let event = vm.wait_for_event(event, 1)?;
    let digest = event
        .text("image_digest")
        .context("the event has no digest")?;
    Ok(digest.chars().take(12).collect())
}

/// Copies a sparse file. The copy is sparse too.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let len = from.metadata()?.len();
    let mut to = File::create(to)?;
    to.set_len(len)?;
    let mut at = 0;
    loop {
        let start = match seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
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
