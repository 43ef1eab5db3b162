//! Disks keep what is written, and can be used by one VM at a time.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;
use vmm_tests::Vm;

const MIB: u64 = 1 << 20;

/// Has the guest execute `command`, checks its status, and returns the checksum.
fn checksum(vm: &mut Vm, command: &str, topic: &str) -> anyhow::Result<String> {
    let said = vm.ask(command, topic)?;
    said.strip_prefix("0 ")
        .map(str::to_owned)
        .with_context(|| vm.failure(&format!("{command}: {said}")))
}

/// What is written is in the file at the right offset, and can be read after another start.
pub(super) fn written_and_read(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    let disk = machine.add_empty_disk("DATA", 64 * MIB)?;
    let builder = machine.linux("").arg("-p").arg("2");
    let mut vm = builder.boot()?;
    let seen = vm.ask("disks", "disk vda ")?;
    ensure!(
        seen == format!("{} DATA rw", 64 * MIB),
        "the guest sees the disk {seen}"
    );
    let written = checksum(&mut vm, "disk write vda 5 7 2", "disk write ")?;
    let read = checksum(&mut vm, "disk read vda 7 2", "disk read ")?;
    ensure!(read == written, "{read} was read, {written} written");
    let mut beginning = [0; 9];
    let mut file = File::open(disk.path())?;
    file.seek(SeekFrom::Start(7 * MIB))?;
    file.read_exact(&mut beginning)?;
    ensure!(
        beginning == *b"5\n6\n7\n8\n9",
        "the file has {:?}",
        String::from_utf8_lossy(&beginning)
    );
    vm.power_off()?;

    let mut vm = builder.boot()?;
    let read = checksum(&mut vm, "disk read vda 7 2", "disk read ")?;
    ensure!(read == written, "{read} was read, {written} written");
    ensure!(vm.ask("disk discard vda 7 1", "disk discard ")? == "0");
    let zeroes = checksum(&mut vm, "disk read vda 0 1", "disk read ")?;
    let discarded = checksum(&mut vm, "disk read vda 7 1", "disk read ")?;
    ensure!(discarded == zeroes, "discarded blocks are not zero");
    vm.power_off()
}

/// More descriptors than the usual soft limit of open files allows.
pub(super) fn eight_of_64_queues(context: &Context) -> anyhow::Result<()> {
    let disks = (0..8).flat_map(|_| ["--disk", "mem:4M,queues=64"]);
    let mut vm = context.linux("").args(["-p", "2"]).args(disks).boot()?;
    vm.type_line("disks")?;
    for letter in 'a'..='h' {
        let seen = vm.wait_for_guest(&format!("disk vd{letter} "))?;
        ensure!(seen == format!("{} - rw", 4 * MIB), "vd{letter}: {seen}");
    }
    for disk in ["vda", "vdh"] {
        let written = checksum(&mut vm, &format!("disk write {disk} 3 1 1"), "disk write ")?;
        let read = checksum(&mut vm, &format!("disk read {disk} 1 1"), "disk read ")?;
        ensure!(read == written, "{read} was read, {written} written");
    }
    vm.power_off()
}

/// Disks in memory, and a file that is not changed.
pub(super) fn nothing_kept(context: &Context) -> anyhow::Result<()> {
    let machine = context.uefi()?;
    let image = machine.file("image");
    std::fs::write(&image, vec![b'x'; 4 << 20])?;
    let mut vm = machine
        .linux("")
        .args(["--disk", "mem:32M"])
        .arg("--disk")
        .arg(format!("memdiff:file:{}", image.display()))
        .boot()?;
    for disk in ["vda", "vdb"] {
        let written = checksum(&mut vm, &format!("disk write {disk} 3 1 1"), "disk write ")?;
        let read = checksum(&mut vm, &format!("disk read {disk} 1 1"), "disk read ")?;
        ensure!(read == written, "{read} was read, {written} written");
    }
    vm.power_off()?;
    ensure!(
        std::fs::read(&image)?.iter().all(|byte| *byte == b'x'),
        "the file was changed"
    );
    Ok(())
}

/// A second VM with the same disk is refused; the first one is not affected.
pub(super) fn locked(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    let disk = machine.add_empty_disk("DATA", 16 * MIB)?;
    let mut first = machine.linux("").boot()?;
    let second = context
        .uefi()?
        .linux("poweroff")
        .arg("--disk")
        .arg(disk.argument())
        .stdio(Stdio::Null)
        .start()?;
    super::expect_error(
        &second,
        OpenvmmExit::ConfigError,
        &disk.path().to_string_lossy(),
    )?;
    checksum(&mut first, "disk write vda 1 0 1", "disk write ")?;
    first.power_off()
}

pub(super) fn missing(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .uefi()?
        .linux("poweroff")
        .args(["--disk", "file:/nonexistent/disk.img"])
        .stdio(Stdio::Null)
        .start()?;
    super::expect_error(&vm, OpenvmmExit::ConfigError, "/nonexistent/disk.img")
}

/// The file is truncated while the guest uses it: the guest gets errors, and openvmm keeps running.
pub(super) fn truncated_in_use(context: &Context) -> anyhow::Result<()> {
    let mut machine = context.uefi()?;
    let disk = machine.add_empty_disk("DATA", 16 * MIB)?;
    let mut vm = machine.linux("").boot()?;
    checksum(&mut vm, "disk write vda 1 8 1", "disk write ")?;
    File::options()
        .write(true)
        .open(disk.path())?
        .set_len(MIB)?;
    let said = vm.ask("disk read vda 8 1", "disk read ")?;
    ensure!(
        !said.starts_with("0 "),
        "{}",
        vm.failure("reading beyond the end of the file succeeded")
    );
    vm.power_off()
}
