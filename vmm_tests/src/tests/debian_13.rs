//! Guests with Debian 13's kernel.

use super::Context;
use anyhow::ensure;
use vmm_tests::GuestSession;
use vmm_tests::OpenvmmExit;

pub(super) fn boots(context: &Context) -> anyhow::Result<()> {
    let context = context.with_kernel_13();
    let mut vm = context.linux("uname,disks").args(["-p", "2"]).start()?;
    let uname = vm.wait_for_guest("uname ")?;
    ensure!(uname.contains("+deb13"), "{uname}");
    vm.wait_for_guest("ready")?;
    vm.command("shutdown")?;
    vm.wait_for_guest("power button")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// After the resume, the guest powers off only when its power button is pressed: the kernel also reports the wake-up, as
/// another key of the same device.
pub(super) fn wakes_on_its_own_firmware(context: &Context) -> anyhow::Result<()> {
    let context = context.with_kernel_13();
    let mut machine = context.uefi()?;
    machine.add_swap_disk()?;
    machine.add_vmgs();
    let mut vm = machine.hibernating().boot()?;
    let session = GuestSession::ask(&mut vm)?;
    GuestSession::hibernate(&mut vm)?;

    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = machine.hibernating().start()?;
    let session = session.resumed(&mut vm)?;
    vm.wait_for_event("hibernation_consumed", 1)?;
    let now = GuestSession::ask(&mut vm)?;
    ensure!(now.continues(&session), "{now:?} is not {session:?}");
    vm.command("shutdown")?;
    vm.wait_for_guest("power button")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}
