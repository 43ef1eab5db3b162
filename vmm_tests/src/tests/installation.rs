//! An installation of Debian: GRUB and systemd, on a disk with ext4 and swap space.

use super::Context;
use anyhow::ensure;
use vmm_tests::GuestSession;
use vmm_tests::OpenvmmExit;
use vmm_tests::UefiMachine;

/// systemd starts in many times the time of the other guests.
const SLOWER: u32 = 4;

/// Starts from its disk, hibernates, and resumes after an update of the host's firmware.
pub(super) fn hibernates(context: &Context) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(&context.environment, context.limit * SLOWER)?;
    machine.add_installed_disk()?;
    machine.add_vmgs();
    machine.update_firmware(&context.environment.ovmf_13)?;
    let mut vm = machine.openvmm().args(["--hibernation", "on"]).boot()?;
    let session = GuestSession::ask(&mut vm)?;
    vm.type_line("systemctl hibernate")?;
    vm.expect_halt(OpenvmmExit::Hibernated, "hibernate")?;

    machine.update_firmware(&context.environment.ovmf_4m)?;
    let builder = machine.openvmm().args(["--hibernation", "on"]);
    let mut vm = builder.start()?;
    let (topic, _) = vm.wait_for_any(&["resumed", "ready"])?;
    ensure!(topic == "resumed", "{}", vm.failure("the session is lost"));
    let now = GuestSession::ask(&mut vm)?;
    ensure!(now.continues(&session), "{now:?} is not {session:?}");
    Ok(())
}
