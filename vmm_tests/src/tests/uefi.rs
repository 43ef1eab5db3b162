//! UEFI firmware boots a given kernel, and what it finds on disks.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::fs;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;
use vmm_tests::Vm;

pub(super) fn kernel_one_processor(context: &Context) -> anyhow::Result<()> {
    boots(context, 1)
}

pub(super) fn kernel_four_processors(context: &Context) -> anyhow::Result<()> {
    boots(context, 4)
}

/// The firmware starts the kernel of `--kernel`.
fn boots(context: &Context, processors: u32) -> anyhow::Result<()> {
    let mut vm = context
        .uefi()?
        .linux("firmware,cpus,memory,poweroff")
        .arg("-p")
        .arg(processors.to_string())
        .start()?;
    expect_uefi(&mut vm)?;
    let seen = vm.wait_for_guest("cpus ")?;
    ensure!(
        seen == processors.to_string(),
        "the guest sees {seen} processors"
    );
    let memory: u64 = vm.wait_for_guest("memory ")?.parse()?;
    // 512 MiB, less what firmware and kernel keep for themselves.
    ensure!((350 << 10..=512 << 10).contains(&memory), "{memory} kB");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

fn expect_uefi(vm: &mut Vm) -> anyhow::Result<()> {
    let firmware = vm.wait_for_guest("firmware ")?;
    ensure!(
        firmware.starts_with("uefi "),
        "the guest sees the firmware {firmware:?}"
    );
    Ok(())
}

/// The 2 MiB build.
pub(super) fn small_firmware(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    machine.update_firmware(&context.environment.ovmf_2m)?;
    let mut vm = machine.linux("firmware,poweroff").start()?;
    expect_uefi(&mut vm)?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// Memory above 4 GiB, which the firmware has to find.
pub(super) fn memory_above_4g(context: &Context) -> anyhow::Result<()> {
    let mut vm = context
        .uefi()?
        .linux("memory,poweroff")
        .memory("3G")
        .start()?;
    let memory: u64 = vm.wait_for_guest("memory ")?.parse()?;
    ensure!(memory > 2800 << 10, "{memory} kB");
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// Without a kernel on the command line, the firmware boots from a disk with an EFI system partition.
pub(super) fn disk(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    machine.add_boot_disk()?;
    let mut vm = machine.openvmm().boot()?;
    vm.type_line("firmware")?;
    expect_uefi(&mut vm)?;
    let disk = vm.ask("disks", "disk vda ")?;
    ensure!(disk.contains(" BOOT rw"), "the guest sees the disk {disk}");
    let file = vm.ask("esp /dev/vda1", "esp ")?;
    ensure!(file == "./EFI/BOOT/BOOTX64.EFI", "on the disk is {file}");
    vm.power_off()
}

/// A read-only disk boots too, and is not changed.
pub(super) fn read_only_disk(context: &Context) -> anyhow::Result<()> {
    let machine = context.uefi()?;
    let image = &context.environment.boot_disk;
    let before = fs::read(image)?;
    let mut vm = machine
        .openvmm()
        .arg("--disk")
        .arg(format!("file:{},ro", image.display()))
        .boot()?;
    let disk = vm.ask("disks", "disk vda ")?;
    ensure!(disk.ends_with(" ro"), "the guest sees the disk {disk}");
    let write = vm.ask("disk write vda 1 0 1", "disk write ")?;
    ensure!(!write.starts_with("0 "), "the guest wrote: {write}");
    vm.power_off()?;
    ensure!(fs::read(image)? == before, "the disk was changed");
    Ok(())
}

/// Variables that the guest creates are kept over a reset and over starts.
pub(super) fn variables_last(context: &Context) -> anyhow::Result<()> {
    let machine = context.uefi()?;
    let template = fs::read(machine.variables())?;
    let builder = machine.linux("");
    let mut vm = builder.boot()?;
    let before = vm.ask("efivar get first", "efivar first ")?;
    ensure!(before == "is not there", "the variable {before}");
    ensure!(vm.ask("efivar create first one", "efivar create ")? == "0");
    vm.power_off()?;
    ensure!(
        fs::read(machine.variables())? != template,
        "the file of the variables was not written"
    );

    let mut vm = builder.boot()?;
    let value = vm.ask("efivar get first", "efivar first ")?;
    ensure!(value == "one", "the variable {value}");
    ensure!(vm.ask("efivar create second two", "efivar create ")? == "0");
    // A reset and `quit`, no power off: variables are written at once.
    vm.type_line("reboot")?;
    vm.wait_for_event("reset", 1)?;
    vm.wait_for_guest("ready")?;
    let value = vm.ask("efivar get second", "efivar second ")?;
    ensure!(value == "two", "the variable {value}");
    vm.last_command("quit")?;
    vm.expect_halt(OpenvmmExit::Quit, "quit")?;

    let mut vm = builder.boot()?;
    for (name, expected) in [("first", "one"), ("second", "two")] {
        let value = vm.ask(&format!("efivar get {name}"), &format!("efivar {name} "))?;
        ensure!(value == expected, "the variable {name} {value}");
    }
    vm.power_off()
}

/// A boot order that the guest sets is kept and followed.
pub(super) fn boot_order(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    machine.add_empty_disk("EMPTY", 16 << 20)?;
    machine.add_boot_disk()?;
    let builder = machine.openvmm();
    let mut vm = builder.boot()?;
    let order = vm.ask("efivar boot BootOrder", "efivar BootOrder ")?;
    let booted = vm.ask("efivar boot BootCurrent", "efivar BootCurrent ")?;
    let mut entries: Vec<_> = options(&order)?;
    ensure!(entries.len() > 1, "the boot order is {order}");
    entries.retain(|entry| *entry != booted);
    entries.insert(0, booted.clone());
    let new_order = entries.join(" ");
    let set = vm.ask(
        &format!("efivar boot BootOrder {new_order}"),
        "efivar boot ",
    )?;
    ensure!(set == "0", "setting the boot order failed");
    vm.power_off()?;

    let mut vm = builder.boot()?;
    let kept = vm.ask("efivar boot BootOrder", "efivar BootOrder ")?;
    ensure!(
        kept.starts_with(&booted),
        "the boot order {kept} does not begin with {booted}"
    );
    let current = vm.ask("efivar boot BootCurrent", "efivar BootCurrent ")?;
    ensure!(current == booted, "booted {current} instead of {booted}");
    vm.power_off()
}

/// Splits a list of bytes into 16-bit numbers, each as two bytes.
fn options(bytes: &str) -> anyhow::Result<Vec<String>> {
    let bytes: Vec<_> = bytes.split_whitespace().collect();
    let (options, rest) = bytes.as_chunks::<2>();
    ensure!(rest.is_empty(), "half a boot option in {bytes:?}");
    Ok(options.iter().map(|option| option.join(" ")).collect())
}

/// The guest resets several times and boots through the firmware each time.
pub(super) fn reboots(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.uefi()?.linux("bootid").arg("-p").arg("2").start()?;
    let mut seen = Vec::new();
    for reset in 1..=3 {
        let id = vm.wait_for_guest("bootid ")?;
        ensure!(
            !seen.contains(&id),
            "the session {id} continues after a reset"
        );
        seen.push(id);
        vm.wait_for_guest("ready")?;
        if reset < 3 {
            vm.type_line("reboot")?;
            vm.wait_for_event("reset", reset)?;
        }
    }
    vm.power_off()
}

pub(super) fn power_button(context: &Context) -> anyhow::Result<()> {
    let mut vm = context.uefi()?.linux("").boot()?;
    vm.command("shutdown")?;
    vm.wait_for_guest("power button")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn missing_firmware(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .openvmm()
        .stdio(Stdio::Null)
        .args(["--uefi", "--uefi-firmware", "/nonexistent/CODE.fd"])
        .start()?;
    super::expect_error(&vm, OpenvmmExit::ConfigError, "/nonexistent/CODE.fd")
}

/// Files that are not firmware, or are truncated, are refused at start.
pub(super) fn damaged_firmware(context: &Context) -> anyhow::Result<()> {
    let code = fs::read(&context.environment.ovmf_4m.code)?;
    let dir = tempfile::tempdir()?;
    let half = &code[..code.len() / 2];
    let zeroes = vec![0; code.len()];
    for (name, content) in [("empty", &[][..]), ("half", half), ("zeroes", &zeroes)] {
        let path = dir.path().join(name);
        fs::write(&path, content)?;
        let vm = context
            .openvmm()
            .stdio(Stdio::Null)
            .arg("--uefi")
            .arg("--uefi-firmware")
            .arg(&path)
            .start()?;
        super::expect_error(&vm, OpenvmmExit::ConfigError, &path.to_string_lossy())
            .with_context(|| format!("firmware: {name}"))?;
    }
    Ok(())
}

/// Variables of another build of the firmware are refused.
pub(super) fn variables_of_another_size(context: &Context) -> anyhow::Result<()> {
    let machine = context.uefi()?;
    fs::copy(&context.environment.ovmf_2m.vars, machine.variables())?;
    let vm = machine.linux("").stdio(Stdio::Null).start()?;
    let path = machine.variables();
    super::expect_error(&vm, OpenvmmExit::ConfigError, &path.to_string_lossy())
}
