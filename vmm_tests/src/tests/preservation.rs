//! A hibernated guest resumes on the firmware that it hibernated on, even if the host's firmware has changed, or the start is
//! refused with the reason.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::fs;
use std::path::Path;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::FileId;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmm_tests::GuestSession;
use vmm_tests::HibernationStatus;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// A machine with a disk to hibernate to, and a VMGS file for its firmware.
fn machine(context: &Context) -> anyhow::Result<UefiMachine> {
    let mut machine = context.uefi()?;
    machine.add_swap_disk()?;
    machine.add_vmgs();
    Ok(machine)
}

/// The status of the machine, which is off.
fn status(context: &Context, machine: &UefiMachine) -> anyhow::Result<HibernationStatus> {
    HibernationStatus::of(&context.environment, &machine.vmgs())
}

fn expect_next_start(
    context: &Context,
    machine: &UefiMachine,
    expected: &str,
) -> anyhow::Result<()> {
    let status = status(context, machine)?;
    ensure!(status.next_start == expected, "{status:?}");
    Ok(())
}

/// Waits for an event. Returns the digest of the firmware that it names.
fn image_digest(vm: &Vm, event: &str) -> anyhow::Result<String> {
    let event = vm.wait_for_event(event, 1)?;
    let digest = event.text("image_digest");
    Ok(digest
        .with_context(|| format!("{event:?} names no digest"))?
        .to_owned())
}

/// A digest of the memory map that the firmware gave to the guest.
fn memory_map(vm: &mut Vm) -> anyhow::Result<String> {
    vm.ask(
        "run say map $(dmesg | grep BIOS-e820 | cut -d ']' -f 2 | md5sum | cut -c 1-32)",
        "map ",
    )
}

/// Checks that the session is resumed, on the firmware with this digest.
fn expect_resumed(
    vm: &mut Vm,
    session: &GuestSession,
    firmware: &str,
) -> anyhow::Result<GuestSession> {
    let restored = image_digest(vm, "hibernation_restored")?;
    ensure!(restored == firmware, "{restored} was restored");
    let session = session.resumed(vm)?;
    let consumed = vm.wait_for_event("hibernation_consumed", 1)?;
    ensure!(consumed.text("by") == Some("wake"), "{consumed:?}");
    Ok(session)
}

pub(super) fn wakes_on_its_own_firmware(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = machine.hibernating().start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    let map = memory_map(&mut vm)?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;
    let written = vm.wait_for_event("hibernation_token_written", 1)?;
    ensure!(written.text("token") == Some("stored"), "{written:?}");
    expect_next_start(context, &machine, "resume")?;

    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = machine.hibernating().start()?;
    let session = expect_resumed(&mut vm, &session, &firmware)?;
    vm.power_off()?;
    expect_next_start(context, &machine, "cold")?;

    // A cold start uses the host's firmware.
    let mut vm = machine.hibernating().start()?;
    let updated = image_digest(&vm, "hibernation_captured")?;
    ensure!(updated != firmware, "the firmware was not updated");
    vm.wait_for_guest("ready")?;
    let fresh = GuestSession::ask(&mut vm)?;
    ensure!(fresh.boot_id != session.boot_id, "the session came back");
    ensure!(
        memory_map(&mut vm)? != map,
        "both firmwares gave the guest the same memory map"
    );
    vm.power_off()
}

/// The guest keeps its firmware and its variables for as long as it only hibernates.
pub(super) fn three_times_while_the_firmware_changes(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = machine.hibernating().start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    ensure!(vm.ask("efivar create kept one", "efivar create ")? == "0");
    let mut session = GuestSession::ask(&mut vm)?;
    let environment = &context.environment;
    for (time, host) in [
        &environment.ovmf_2m,
        &environment.ovmf_4m,
        &environment.ovmf_2m,
    ]
    .into_iter()
    .enumerate()
    {
        GuestSession::hibernate(&mut vm)?;
        machine.update_firmware(host)?;
        vm = machine.hibernating().start()?;
        session = expect_resumed(&mut vm, &session, &firmware)
            .with_context(|| format!("hibernated {} times", time + 1))?;
        let kept = vm.ask("efivar get kept", "efivar kept ")?;
        ensure!(kept == "one", "the variable {kept}");
    }
    vm.power_off()?;
    expect_next_start(context, &machine, "cold")
}

/// A start that cannot restore the guest's firmware is refused with the reason, and changes nothing.
pub(super) fn refused_with_a_reason(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let builder = machine.hibernating();
    let mut vm = builder.start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    let store = machine.vmgs();
    let older = machine.file("older");
    let session = GuestSession::ask(&mut vm)?;
    fs::copy(&store, &older)?;
    GuestSession::hibernate(&mut vm)?;
    let good = machine.file("good");
    fs::copy(&store, &good)?;
    let code = fs::read(&context.environment.ovmf_4m.code)?;
    machine.update_firmware(&context.environment.ovmf_2m)?;
    let builder = machine.hibernating();

    let memory = "memory: hibernated with 512 MiB, started with 256 MiB";
    expect_refusal(&builder.clone().memory("256M"), "machine_changed", memory)?;
    let processors = "processors: hibernated with 1, started with 2";
    let two = builder.clone().args(["-p", "2"]);
    expect_refusal(&two, "machine_changed", processors)?;
    let device = builder.clone().arg("--virtio-rng");
    expect_refusal(&device, "machine_changed", "virtio-rng")?;

    flip_bit(&store, &code)?;
    expect_refusal(&builder, "image_corrupt", "stored firmware is corrupt")?;
    expect_next_start(context, &machine, "refuse")?;
    fs::copy(&good, &store)?;

    truncate_record(&store)?;
    expect_refusal(&builder, "image_corrupt", "stored firmware is corrupt")?;
    fs::copy(&good, &store)?;

    // The file itself is damaged: what is left of it may look like an older state.
    fs::File::options()
        .write(true)
        .open(&store)?
        .set_len(1 << 20)?;
    let reason = refusal(&builder)?.0;
    ensure!(
        ["token_corrupt", "image_corrupt", "store_older"].contains(&reason.as_str()),
        "refused for the reason {reason}"
    );
    fs::copy(&good, &store)?;

    // A copy from before the guest hibernated, which has no token.
    fs::copy(&older, &store)?;
    expect_refusal(&builder, "store_older", "older copy")?;
    fs::copy(&good, &store)?;

    // Each override, until the VM has started.
    flip_bit(&store, &code)?;
    let current = ["--hibernation-override", "current-firmware"];
    let vm = builder.clone().args(current).start()?;
    vm.wait_for_event("hibernation_current_firmware_used", 1)?;
    vm.wait_for_event("started", 1)?;
    vm.kill()?;
    expect_next_start(context, &machine, "refuse")?;
    let discard = ["--hibernation-override", "discard"];
    let vm = builder.clone().args(discard).start()?;
    vm.wait_for_event("hibernation_discarded", 1)?;
    let captured = image_digest(&vm, "hibernation_captured")?;
    ensure!(captured != firmware, "the host's firmware was not stored");
    vm.wait_for_event("started", 1)?;
    vm.kill()?;
    expect_next_start(context, &machine, "cold")?;

    // With the newest copy, the session is resumed, after the notes about the discarded state are deleted.
    fs::copy(&good, &store)?;
    expect_refusal(&builder, "store_older", "older copy")?;
    fs::remove_file(machine.file("vmgs.seen"))?;
    let mut vm = builder.start()?;
    expect_resumed(&mut vm, &session, &firmware)?;
    vm.power_off()
}

/// Checks that the start is refused with this reason and text.
fn expect_refusal(builder: &VmBuilder, reason: &str, words: &str) -> anyhow::Result<()> {
    let (refused, vm) = refusal(builder).with_context(|| format!("expected {reason}"))?;
    ensure!(
        refused == reason && vm.errors().contains(words),
        "{}",
        vm.failure(&format!("expected {reason}, in the words {words:?}"))
    );
    Ok(())
}

/// Checks that the start is refused and that the overrides are named. Returns the reason.
fn refusal(builder: &VmBuilder) -> anyhow::Result<(String, Vm)> {
    let vm = builder.clone().stdio(Stdio::Null).start()?;
    for way in ["discard", "current-firmware"] {
        super::expect_error(&vm, OpenvmmExit::ConfigError, &format!("override: {way}"))?;
    }
    let refused = vm.wait_for_event("hibernation_refused", 1)?;
    let reason = refused.reason.context("no reason is given")?;
    Ok((reason, vm))
}

/// Flips a bit in each copy of the stored firmware, without updating checksums.
fn flip_bit(store: &Path, code: &[u8]) -> anyhow::Result<()> {
    let mut bytes = fs::read(store)?;
    // A sample of compressed data occurs only once in the firmware. But there may be another copy of that in free blocks.
    let sample = &code[code.len() / 2..][..64];
    let copies: Vec<_> = bytes
        .windows(sample.len())
        .enumerate()
        .filter_map(|(at, window)| (window == sample).then_some(at))
        .collect();
    ensure!(!copies.is_empty(), "cannot find the firmware in the store");
    for at in copies {
        bytes[at] ^= 1;
    }
    fs::write(store, bytes)?;
    Ok(())
}

/// Truncates the record of the stored firmware.
fn truncate_record(store: &Path) -> anyhow::Result<()> {
    let device = FileDevice::open(store, Container::Detect, StoreAccess::ReadWrite)?;
    let mut vmgs = Vmgs::open(Box::new(device), OpenOptions::default())?;
    let record = vmgs.read(FileId::HIBERNATION_FIRMWARE)?;
    let half = &record[..record.len() / 2];
    vmgs.write(FileId::HIBERNATION_FIRMWARE, Protection::Plain, half)?;
    Ok(())
}
