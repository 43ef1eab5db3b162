//! Debian's kernel in an IGVM file.

use crate::timeline::Timeline;
use std::time::Duration;
use vmm_tests::Environment;
use vmm_tests::MadeIgvm;

/// The time limit for openvmm.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(environment: &Environment, timeline: &Timeline) -> anyhow::Result<()> {
    timeline.host("makes an IGVM file of Debian's kernel by the manifest linux-x64.json");
    let igvm = MadeIgvm::linux(environment)?;
    for line in igvm.map()?.lines() {
        timeline.result(line);
    }
    timeline.host("starts openvmm with --igvm type=linux,path=linux-x64.igvm");
    let mut vm = igvm
        .openvmm_linux(environment, LIMIT, "uname,cpus,memory")
        .args(["-p", "2"])
        .start()?;
    for topic in ["uname ", "cpus ", "memory "] {
        let answer = vm.wait_for_guest(topic)?;
        timeline.guest(&format!("prints: {topic}{answer}"));
    }
    vm.wait_for_guest("ready")?;
    vm.power_off()?;
    timeline.guest("has powered off");
    Ok(())
}
