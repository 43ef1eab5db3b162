//! Guests with a guest of their own.

use super::Context;
use anyhow::ensure;
use vmm_tests::OpenvmmExit;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::payload;

/// A guest whose inner guest prints that many lines and then resets the machine.
struct InnerGuest {
    dir: tempfile::TempDir,
}

impl InnerGuest {
    fn new(lines: u32) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("guest"), payload::inner_guest(lines))?;
        Ok(Self { dir })
    }

    fn openvmm(&self, context: &Context, nested: &str) -> VmBuilder {
        let kernel = self.dir.path().join("guest");
        context
            .openvmm()
            .arg("--nested")
            .arg(nested)
            .arg("--kernel")
            .arg(kernel)
    }
}

fn line(number: u32) -> String {
    payload::flood_line(number).trim_end().to_owned()
}

pub(super) fn resets_from_the_inner_guest(context: &Context) -> anyhow::Result<()> {
    let guest = InnerGuest::new(5)?;
    let mut vm = guest.openvmm(context, "on").start()?;
    for boot in 1..=3 {
        for number in [1, 5] {
            vm.wait_for_output(&line(number))?;
        }
        vm.wait_for_event("reset", boot)?;
    }
    // It also stops and goes on like any guest.
    vm.wait_for_output(&line(1))?;
    vm.command("pause")?;
    vm.wait_for_event("paused", 1)?;
    vm.command("resume")?;
    vm.wait_for_event("resumed", 1)?;
    vm.wait_for_output(&line(5))?;
    Ok(())
}

pub(super) fn a_user_reset_leaves_the_inner_guest(context: &Context) -> anyhow::Result<()> {
    let guest = InnerGuest::new(u32::MAX)?;
    let mut vm = guest.openvmm(context, "on").start()?;
    vm.wait_for_output(&line(3))?;
    vm.command("reset")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_output(&line(1))?;
    vm.wait_for_output(&line(3))?;
    Ok(())
}

/// The numbers of the whole lines that the inner guest has printed.
fn numbers(vm: &Vm) -> Vec<u32> {
    let output = vm.output();
    let output = String::from_utf8_lossy(&output);
    let lines = output.split('\n').map(str::trim);
    let whole = lines.filter(|line| line.len() + 1 == payload::FLOOD_LINE);
    whole.filter_map(|line| line.parse().ok()).collect()
}

/// The inner guest goes on in a new process with the line that comes next, three times in a row.
pub(super) fn saved_while_the_inner_guest_runs(context: &Context) -> anyhow::Result<()> {
    let guest = InnerGuest::new(u32::MAX)?;
    let mut vm = guest.openvmm(context, "on").start()?;
    vm.wait_for_output(&line(3))?;
    for generation in 0..3 {
        let before = numbers(&vm).last().copied().unwrap_or(0);
        let dir = guest.dir.path().join(format!("snapshot{generation}"));
        vm.command(&format!("save-snapshot {}", dir.display()))?;
        vm.wait_for_event("snapshot_saved", 1)?;
        // The original goes on from the same line.
        vm.wait_for_output(&line(before + 10))?;
        let original = numbers(&vm);
        vm.kill()?;

        vm = context.openvmm().restored(&dir).start()?;
        vm.wait_for_output(&line(before + 10))?;
        let restored = numbers(&vm);
        ensure!(
            restored.windows(2).all(|pair| pair[0] + 1 == pair[1])
                && restored
                    .first()
                    .is_some_and(|n| *n > before && original.contains(n)),
            "{}",
            vm.failure(&format!("{original:?}, then {restored:?}"))
        );
    }
    vm.command("reset")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_output(&line(1))?;
    vm.kill().map(drop)
}

pub(super) fn only_when_asked_for(context: &Context) -> anyhow::Result<()> {
    let guest = InnerGuest::new(1)?;
    let vm = guest.openvmm(context, "off").start()?;
    vm.expect_halt(OpenvmmExit::TripleFault, "triple_fault")?;
    for (nested, not) in [(&["--nested", "on"][..], ""), (&[], "! ")] {
        let mut linux = context.linux("").args(nested).boot()?;
        linux.type_line(&format!("run {not}grep -wqE 'svm|vmx' /proc/cpuinfo"))?;
        linux.wait_for_guest("run done")?;
        linux.power_off()?;
    }
    Ok(())
}
