//! Builds of OVMF differ in where they put PCI configuration space and functions. The guest is told the truth, and finds it
//! after it hibernated, whatever firmware the host has by then.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::fs;
use vmm_tests::GuestSession;
use vmm_tests::OpenvmmExit;
use vmm_tests::OvmfBuild;
use vmm_tests::Vm;

/// Where builds of 2022 and before put configuration space, and later ones.
const ECAM_2022: u64 = 0xb000_0000;
const ECAM_LATER: u64 = 0xe000_0000;

/// The host bridge's vendor and device.
const HOST_BRIDGE: &str = "0x29C08086";

pub(super) fn debian_12_then_13(context: &Context) -> anyhow::Result<()> {
    let environment = &context.environment;
    updated(
        context,
        &environment.ovmf_4m,
        ECAM_2022,
        &environment.ovmf_13,
    )
}

pub(super) fn debian_12_small_then_13(context: &Context) -> anyhow::Result<()> {
    let environment = &context.environment;
    updated(
        context,
        &environment.ovmf_2m,
        ECAM_2022,
        &environment.ovmf_13,
    )
}

pub(super) fn debian_13_then_12(context: &Context) -> anyhow::Result<()> {
    let environment = &context.environment;
    updated(
        context,
        &environment.ovmf_13,
        ECAM_LATER,
        &environment.ovmf_4m,
    )
}

/// A guest starts on a build, hibernates, and resumes on a host with another build.
fn updated(
    context: &Context,
    build: &OvmfBuild,
    ecam: u64,
    update: &OvmfBuild,
) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    machine.add_swap_disk()?;
    machine.add_vmgs();
    machine.update_firmware(build)?;
    let builder = || {
        let builder = machine.hibernating();
        // So that the guest may read configuration space.
        builder.args(["--cmdline", "iomem=relaxed"])
    };
    let mut vm = builder().boot()?;
    check_addresses(&mut vm, ecam)?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;

    machine.update_firmware(update)?;
    let builder = machine.hibernating();
    let mut vm = builder.args(["--cmdline", "iomem=relaxed"]).start()?;
    let session = session.resumed(&mut vm)?;
    check_addresses(&mut vm, ecam)?;
    let now = GuestSession::ask(&mut vm)?;
    ensure!(now.continues(&session), "{now:?} is not {session:?}");
    vm.power_off()
}

/// Checks that the guest uses the addresses that the firmware programmed, and finds configuration space at `ecam`.
fn check_addresses(vm: &mut Vm, ecam: u64) -> anyhow::Result<()> {
    let moved = "can.t claim|no compatible bridge window|BAR.*(failed to assign|no space)";
    let moved = vm.ask(
        &format!("run say moved $(dmesg | grep -cE \"{moved}\")"),
        "moved ",
    )?;
    ensure!(moved == "0", "{}", vm.failure("the guest moved BARs"));
    // `(base 0x…)`, in the words of several versions of Linux.
    let base = vm.ask(
        "run say ecam $(dmesg | sed -n 's/.*PCI: .*(base \\(0x[0-9a-f]*\\)).*/\\1/p' | head -n 1)",
        "ecam ",
    )?;
    ensure!(
        base == format!("{ecam:#x}"),
        "configuration space is at {base}"
    );
    let read = vm.ask(&format!("run say read $(devmem {ecam:#x} 32)"), "read ")?;
    ensure!(read == HOST_BRIDGE, "at {ecam:#x} is {read}");
    Ok(())
}

/// Firmware whose template of variables is not installed with it starts with new ones, and keeps them.
pub(super) fn code_alone(context: &Context) -> anyhow::Result<()> {
    let machine = context.uefi()?;
    let code = machine.file("firmware");
    fs::copy(&context.environment.ovmf_13.code, &code).context("cannot copy the firmware")?;
    let mut vm = context
        .linux("firmware,poweroff")
        .arg("--uefi-firmware")
        .arg(&code)
        .start()?;
    let firmware = vm.wait_for_guest("firmware ")?;
    ensure!(firmware.starts_with("uefi "), "{firmware}");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}
