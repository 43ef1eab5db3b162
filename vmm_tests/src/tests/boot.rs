//! Guests boot and see the configured machine.

use super::Context;
use anyhow::ensure;
use vmm_tests::OpenvmmExit;

pub(super) fn one_processor(context: &Context) -> anyhow::Result<()> {
    boots(context, 1)
}

pub(super) fn four_processors(context: &Context) -> anyhow::Result<()> {
    boots(context, 4)
}

fn boots(context: &Context, processors: u32) -> anyhow::Result<()> {
    let mut vm = context
        .linux("uname,cpus,memory,poweroff")
        .arg("-p")
        .arg(processors.to_string())
        .start()?;
    ensure!(vm.wait_for_guest("uname ")?.contains("Linux"));
    let seen = vm.wait_for_guest("cpus ")?;
    ensure!(
        seen == processors.to_string(),
        "the guest sees {seen} processors"
    );
    let memory: u64 = vm.wait_for_guest("memory ")?.parse()?;
    // 512 MiB, less what the kernel keeps for itself.
    ensure!((400 << 10..=512 << 10).contains(&memory), "{memory} kB");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn file_backed_memory(context: &Context) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("memory");
    let mut vm = context
        .linux("")
        .memory(format!("size=256M,file={}", file.display()))
        .boot()?;
    ensure!(std::fs::metadata(&file)?.len() == 256 << 20);
    // The file holds the guest's memory, and so the text that it has just written to a RAM disk.
    vm.type_line("run echo wake-up-$((41+1)) >/tmp/mark")?;
    vm.wait_for_guest("run done")?;
    let memory = std::fs::read(&file)?;
    let mark = b"wake-up-42";
    ensure!(
        memory.windows(mark.len()).any(|window| window == mark),
        "the guest's memory is not in the file"
    );
    vm.power_off()
}

pub(super) fn split_irqchip(context: &Context) -> anyhow::Result<()> {
    let mut vm = context
        .linux("cpus,poweroff")
        .args(["--irqchip", "split", "-p", "2"])
        .start()?;
    ensure!(vm.wait_for_guest("cpus ")? == "2");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn events_come_in_order(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("poweroff").start()?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    let events = vm.events();
    let mut last = 0;
    for event in &events {
        ensure!(
            event.monotonic_ns >= last,
            "{}",
            vm.failure("the time of an event is before that of its predecessor")
        );
        last = event.monotonic_ns;
    }
    let mut names = events.iter().map(|event| event.name.as_str());
    for expected in ["created", "started", "first_instruction", "halted"] {
        ensure!(
            names.any(|name| name == expected),
            "{}",
            vm.failure(&format!("no event {expected}, or not in this order"))
        );
    }
    Ok(())
}
