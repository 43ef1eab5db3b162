//! Hibernation with Debian's stock firmware and kernel.

use crate::timeline::Timeline;
use std::time::Duration;
use vmm_tests::Environment;
use vmm_tests::GuestSession;
use vmm_tests::UefiMachine;

/// The time limit for each openvmm.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(environment: &Environment, timeline: &Timeline) -> anyhow::Result<()> {
    let mut machine = UefiMachine::new(environment, LIMIT)?;
    machine.add_swap_disk()?;
    let builder = machine.hibernating().args(["-p", "2"]);

    timeline.host("starts openvmm with OVMF (4 MiB build) and Debian's kernel");
    let mut vm = builder.boot()?;
    let before = GuestSession::ask(&mut vm)?;
    timeline.session("is up", &before);
    timeline.guest("hibernates");
    GuestSession::hibernate(&mut vm)?;
    timeline.host("openvmm has ended with exit code 7: hibernated");

    timeline.host("starts openvmm with the same arguments");
    let mut vm = builder.start()?;
    let after = before.resumed(&mut vm)?;
    timeline.session("is resumed, the same session", &after);
    vm.power_off()?;
    timeline.guest("has powered off");
    timeline.host("the session survived");
    Ok(())
}
