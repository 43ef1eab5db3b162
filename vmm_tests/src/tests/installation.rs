//! An installation of Debian: GRUB and systemd, on a disk with ext4 and swap space.

use super::Context;
use anyhow::ensure;
use vmm_tests::GuestSession;
use vmm_tests::OpenvmmExit;
use vmm_tests::UefiMachine;

/// systemd starts in many times the time of the other guests.
const SLOWER: u32 = 4;

/// systemd ignores the power button until it is done with a resume, which is later than the guest says.
const AWAIT_RESUME: &str = "until [ $(systemctl show -P ActiveState systemd-hibernate.service) = inactive ]; do sleep 1; done; say awake";

/// Starts from its disk, hibernates, resumes after an update of the host's firmware, and powers off: by the power button and
/// by itself. A panic is reported.
pub(super) fn hibernates_and_powers_off(context: &Context) -> anyhow::Result<()> {
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
    vm.ask(AWAIT_RESUME, "awake")?;
    vm.command("shutdown")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;

    let mut vm = builder.boot()?;
    let fresh = GuestSession::ask(&mut vm)?;
    ensure!(
        fresh.boot_id != session.boot_id,
        "the session came back after the system was shut down"
    );
    vm.type_line("poweroff")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;

    let mut vm = builder.boot()?;
    vm.type_line("echo c >/proc/sysrq-trigger")?;
    vm.expect_halt(OpenvmmExit::GuestPanic, "guest_panic")
}
