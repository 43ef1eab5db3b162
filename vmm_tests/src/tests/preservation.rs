//! A hibernated guest wakes on the firmware it went to sleep on, whatever the host has by then, or says why it does not.

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
use vmm_tests::Exit;
use vmm_tests::HibernationStatus;
use vmm_tests::Session;
use vmm_tests::Stdio;
use vmm_tests::UefiMachine;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;

/// Room for what a guest of 512 MiB has in memory.
const SWAP: u64 = 1 << 30;

/// A machine with a disk to hibernate to, and a store for its firmware.
fn machine(context: &Context) -> anyhow::Result<UefiMachine> {
    let mut machine = context.uefi()?;
    machine.add_empty_disk("SWAP", SWAP)?;
    machine.add_vmgs();
    Ok(machine)
}

fn preserving(machine: &UefiMachine) -> VmBuilder {
    machine.linux("").args(["--hibernation", "on"])
}

/// What the next start would do.
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

/// The digest of the firmware that an event speaks of.
fn image_digest(vm: &Vm, event: &str) -> anyhow::Result<String> {
    let event = vm.wait_for_event(event, 1)?;
    let digest = event.text("image_digest");
    Ok(digest
        .with_context(|| format!("{event:?} names no digest"))?
        .to_owned())
}

/// How the guest was told that memory is laid out, as a digest.
fn memory_map(vm: &mut Vm) -> anyhow::Result<String> {
    vm.ask(
        "run say map $(dmesg | grep BIOS-e820 | cut -d ']' -f 2 | md5sum | cut -c 1-32)",
        "map ",
    )
}

/// The guest that hibernated goes on, on the firmware with this digest.
fn expect_resumed(vm: &mut Vm, session: &Session, firmware: &str) -> anyhow::Result<Session> {
    let restored = image_digest(vm, "hibernation_restored")?;
    ensure!(restored == firmware, "{restored} was restored");
    let session = session.resumed(vm)?;
    let consumed = vm.wait_for_event("hibernation_consumed", 1)?;
    ensure!(consumed.text("by") == Some("wake"), "{consumed:?}");
    Ok(session)
}

fn power_off(vm: &mut Vm) -> anyhow::Result<()> {
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")
}

pub(super) fn wakes_on_its_own_firmware(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = preserving(&machine).start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    let map = memory_map(&mut vm)?;
    let session = Session::ask(&mut vm)?;
    Session::hibernate(&mut vm)?;
    let written = vm.wait_for_event("hibernation_token_written", 1)?;
    ensure!(written.text("token") == Some("stored"), "{written:?}");
    expect_next_start(context, &machine, "resume")?;

    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = preserving(&machine).start()?;
    let session = expect_resumed(&mut vm, &session, &firmware)?;
    power_off(&mut vm)?;
    expect_next_start(context, &machine, "cold")?;

    // Only now the host's firmware runs.
    let mut vm = preserving(&machine).start()?;
    let updated = image_digest(&vm, "hibernation_captured")?;
    ensure!(updated != firmware, "the firmware was not updated");
    vm.wait_for_guest("ready")?;
    let fresh = Session::ask(&mut vm)?;
    ensure!(fresh.boot_id != session.boot_id, "the session came back");
    ensure!(
        memory_map(&mut vm)? != map,
        "the guest was told the same memory map by both firmwares"
    );
    power_off(&mut vm)
}

/// The guest stays on its firmware for as long as it only hibernates. What it had made a variable is there all the
/// time.
pub(super) fn three_times_while_the_firmware_changes(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let mut vm = preserving(&machine).start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    ensure!(vm.ask("efivar create kept one", "efivar create ")? == "0");
    let mut session = Session::ask(&mut vm)?;
    let environment = &context.environment;
    for (time, host) in [
        &environment.ovmf_2m,
        &environment.ovmf_4m,
        &environment.ovmf_2m,
    ]
    .into_iter()
    .enumerate()
    {
        Session::hibernate(&mut vm)?;
        machine.update_firmware(host)?;
        vm = preserving(&machine).start()?;
        session = expect_resumed(&mut vm, &session, &firmware)
            .with_context(|| format!("hibernated {} times", time + 1))?;
        let kept = vm.ask("efivar get kept", "efivar kept ")?;
        ensure!(kept == "one", "the variable {kept}");
    }
    power_off(&mut vm)?;
    expect_next_start(context, &machine, "cold")
}

/// Whatever keeps the guest from getting its firmware back stops the start, says so, and takes nothing away.
pub(super) fn refused_with_a_reason(context: &Context) -> anyhow::Result<()> {
    let mut machine = machine(context)?;
    let builder = preserving(&machine);
    let mut vm = builder.start()?;
    let firmware = image_digest(&vm, "hibernation_captured")?;
    vm.wait_for_guest("ready")?;
    let store = machine.vmgs();
    let older = machine.file("older");
    let session = Session::ask(&mut vm)?;
    fs::copy(&store, &older)?;
    Session::hibernate(&mut vm)?;
    let good = machine.file("good");
    fs::copy(&store, &good)?;
    let code = fs::read(&context.environment.ovmf_4m.code)?;
    machine.update_firmware(&context.environment.ovmf_2m)?;
    let builder = preserving(&machine);

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

    // Not only what is in the store, the store itself: from what is left of it, it may look older than it was.
    fs::File::options()
        .write(true)
        .open(&store)?
        .set_len(1 << 20)?;
    let reason = refusal(&builder)?.0;
    ensure!(
        ["token_corrupt", "store_older"].contains(&reason.as_str()),
        "refused for the reason {reason}"
    );
    fs::copy(&good, &store)?;

    // From before the guest hibernated: nothing in it says that it has.
    fs::copy(&older, &store)?;
    expect_refusal(&builder, "store_older", "older copy")?;
    fs::copy(&good, &store)?;

    // Each way on, up to where it is clear that it goes on.
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

    // The newest copy of the store, put back, and all is well. The notes of its age speak of what was discarded.
    fs::copy(&good, &store)?;
    expect_refusal(&builder, "store_older", "older copy")?;
    fs::remove_file(machine.file("vmgs.seen"))?;
    let mut vm = builder.start()?;
    expect_resumed(&mut vm, &session, &firmware)?;
    power_off(&mut vm)
}

/// The start is refused for this reason, in these words.
fn expect_refusal(builder: &VmBuilder, reason: &str, words: &str) -> anyhow::Result<()> {
    let (refused, vm) = refusal(builder).with_context(|| format!("expected {reason}"))?;
    ensure!(
        refused == reason && vm.errors().contains(words),
        "{}",
        vm.failure(&format!("expected {reason}, in the words {words:?}"))
    );
    Ok(())
}

/// The start is refused, and ways to go on are named. Returns the reason.
fn refusal(builder: &VmBuilder) -> anyhow::Result<(String, Vm)> {
    let vm = builder.clone().stdio(Stdio::Null).start()?;
    for way in ["discard", "current-firmware"] {
        super::expect_error(&vm, Exit::ConfigError, &format!("override: {way}"))?;
    }
    let refused = vm.wait_for_event("hibernation_refused", 1)?;
    let reason = refused.reason.context("no reason is given")?;
    Ok((reason, vm))
}

/// Flips a bit of the firmware in the store, behind the back of everything that knows the store's format.
fn flip_bit(store: &Path, code: &[u8]) -> anyhow::Result<()> {
    let mut bytes = fs::read(store)?;
    // Something that is compressed, so that it is there once.
    let sample = &code[code.len() / 2..][..64];
    let at = bytes
        .windows(sample.len())
        .position(|window| window == sample)
        .context("the firmware is not in the store as it is")?;
    bytes[at] ^= 1;
    fs::write(store, bytes)?;
    Ok(())
}

/// Takes the end of the record of the firmware away.
fn truncate_record(store: &Path) -> anyhow::Result<()> {
    let device = FileDevice::open(store, Container::Detect, StoreAccess::ReadWrite)?;
    let mut vmgs = Vmgs::open(Box::new(device), OpenOptions::default())?;
    let record = vmgs.read(FileId::HIBERNATION_FIRMWARE)?;
    let half = &record[..record.len() / 2];
    vmgs.write(FileId::HIBERNATION_FIRMWARE, Protection::Plain, half)?;
    Ok(())
}
