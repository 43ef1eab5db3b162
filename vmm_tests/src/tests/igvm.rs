//! Guests in IGVM files boot, and files that cannot be loaded are refused with the reason.

use super::Context;
use super::expect_error;
use anyhow::ensure;
use vmm_tests::GuestSession;
use vmm_tests::MadeIgvm;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;

pub(super) fn linux(context: &Context) -> anyhow::Result<()> {
    let igvm = MadeIgvm::linux(&context.environment)?;
    let mut vm = igvm
        .openvmm_linux(&context.environment, context.limit, "uname,cpus,memory")
        .args(["-p", "2"])
        .start()?;
    ensure!(vm.wait_for_guest("uname ")?.contains("Linux"));
    // From the host's ACPI tables.
    let seen = vm.wait_for_guest("cpus ")?;
    ensure!(seen == "2", "the guest sees {seen} processors");
    // What the manifest says, whatever the host has: 256 MiB, less what the kernel keeps for itself.
    let memory: u64 = vm.wait_for_guest("memory ")?.parse()?;
    ensure!((180 << 10..=256 << 10).contains(&memory), "{memory} kB");
    // The file is loaded again at a reset.
    vm.type_line("reboot")?;
    ensure!(vm.wait_for_guest("uname ")?.contains("Linux"));
    vm.wait_for_guest("ready")?;
    vm.power_off()
}

/// A guest hibernates on OVMF in one file, and resumes on it although the file has another build by then.
pub(super) fn ovmf(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    machine.add_swap_disk()?;
    machine.add_vmgs();
    machine.pack_firmware()?;
    let mut vm = machine.hibernating().boot()?;
    let firmware = vm.ask("firmware", "firmware ")?;
    ensure!(firmware.starts_with("uefi "), "{firmware}");
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;

    machine.update_firmware(&context.environment.ovmf_2m)?;
    machine.pack_firmware()?;
    let mut vm = machine.hibernating().start()?;
    session.resumed(&mut vm)?;
    vm.power_off()
}

pub(super) fn too_little_memory(context: &Context) -> anyhow::Result<()> {
    let igvm = MadeIgvm::linux(&context.environment)?;
    let vm = igvm
        .openvmm_linux(&context.environment, context.limit, "poweroff")
        .memory("128M")
        .stdio(Stdio::Null)
        .start()?;
    let expected = "is for 0x0-0x10000000, but this guest has RAM at 0x0-0x8000000";
    expect_error(&vm, OpenvmmExit::ConfigError, expected)
}

pub(super) fn no_type(context: &Context) -> anyhow::Result<()> {
    let igvm = MadeIgvm::linux(&context.environment)?;
    let vm = context
        .openvmm()
        .stdio(Stdio::Null)
        .arg("--igvm")
        .arg(igvm.path())
        .start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "--igvm-personality")
}

pub(super) fn damaged(context: &Context) -> anyhow::Result<()> {
    let igvm = MadeIgvm::linux(&context.environment)?;
    let mut bytes = std::fs::read(igvm.path())?;
    // In the variable headers.
    bytes[64] ^= 1;
    std::fs::write(igvm.path(), bytes)?;
    let vm = igvm
        .openvmm_linux(&context.environment, context.limit, "poweroff")
        .stdio(Stdio::Null)
        .start()?;
    let expected = "fixed header at offset 0x0: its checksum is";
    expect_error(&vm, OpenvmmExit::ConfigError, expected)
}
