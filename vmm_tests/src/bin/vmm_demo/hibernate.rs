//! Hibernation on stock software: firmware, kernel and swap space as Debian ships them.

use crate::timeline::Timeline;
use std::time::Duration;
use vmm_tests::Environment;
use vmm_tests::Exit;
use vmm_tests::Session;
use vmm_tests::UefiMachine;

/// A guest that takes longer than this to do what it should does not do it.
const LIMIT: Duration = Duration::from_secs(300);

/// Room for what the guest has in memory.
const SWAP: u64 = 1 << 30;

pub(crate) fn tell(environment: &Environment, timeline: &Timeline) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(environment, LIMIT)?;
    machine.add_empty_disk("SWAP", SWAP)?;
    let builder = machine.linux("").args(["-p", "2", "--hibernation", "on"]);

    timeline.host("starts openvmm with OVMF (4 MiB build) and Debian's kernel");
    let mut vm = builder.start()?;
    vm.wait_for_guest("ready")?;
    let before = Session::ask(&mut vm)?;
    show(timeline, "is up", &before);
    timeline.guest("hibernates");
    Session::hibernate(&mut vm)?;
    timeline.host("openvmm has ended with status 7: hibernated");

    timeline.host("starts openvmm with the same arguments");
    let mut vm = builder.start()?;
    let after = before.resumed(&mut vm)?;
    show(timeline, "is back, as the same session", &after);
    vm.type_line("poweroff")?;
    vm.expect_halt(Exit::PoweredOff, "power_off")?;
    timeline.guest("has powered off");
    timeline.host("the session survived");
    Ok(())
}

fn show(timeline: &Timeline, what: &str, session: &Session) {
    timeline.guest(&format!(
        "{what}: boot id {}, token {}, counter {} at {}",
        session.boot_id, session.token, session.counter_pid, session.count
    ));
}
