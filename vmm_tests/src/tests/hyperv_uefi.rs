//! Firmware of generation-2 VMs of Hyper-V, stood in for by the test firmware, which checks its machine and says what it finds.

use super::Context;
use anyhow::Context as _;
use anyhow::ensure;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;
use vmm_tests::HibernationStatus;
use vmm_tests::MadeIgvm;
use vmm_tests::OpenvmmExit;
use vmm_tests::Vm;
use vmm_tests::VmBuilder;
use vmm_tests::payload::firmware_of_version;

/// What the test firmware found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Findings {
    /// Its version.
    version: String,
    /// The boots that it counted in a UEFI variable.
    boots: u64,
    /// The other values that it printed, by name.
    values: BTreeMap<String, String>,
}

impl Findings {
    /// Waits for the test firmware's report, and fails if a check has.
    fn wait(vm: &mut Vm) -> anyhow::Result<Self> {
        let version = vm.wait_for_output("firmware test firmware no. ")?;
        let failed = vm.wait_for_output("value failed ")?;
        vm.wait_for_output("ready")?;
        let output = String::from_utf8_lossy(&vm.output()).into_owned();
        // The report of this boot, if there was one before.
        let report = output.rsplit("firmware test firmware").next();
        let lines: Vec<_> = report.unwrap_or_default().lines().map(str::trim).collect();
        let wrong: Vec<_> = lines.iter().filter(|line| line.contains(" FAIL")).collect();
        ensure!(
            failed == "0x0" && wrong.is_empty(),
            "{failed} failed: {wrong:#?}"
        );
        let passed = lines.iter().filter(|line| line.ends_with(" ok")).count();
        ensure!(passed >= 60, "only {passed} checks: {output}");
        let values = lines.iter().filter_map(|line| {
            let (name, value) = line.strip_prefix("value ")?.split_once(' ')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let mut found = Self {
            version,
            boots: 0,
            values: values.collect(),
        };
        found.boots = found.value("uefi.boots")?;
        found.values.remove("uefi.boots");
        Ok(found)
    }

    /// Fails unless this boot, the `boots`-th, found what `first` did.
    fn expect_boot(&self, boots: u64, first: &Self) -> anyhow::Result<()> {
        let expected = Self {
            boots,
            ..first.clone()
        };
        ensure!(*self == expected, "{self:#?} is not {expected:#?}");
        Ok(())
    }

    fn value(&self, name: &str) -> anyhow::Result<u64> {
        let value = self.values.get(name);
        let value = value.with_context(|| format!("{self:#?} has no {name}"))?;
        Ok(u64::from_str_radix(value.trim_start_matches("0x"), 16)?)
    }

    fn expect(&self, name: &str, expected: u64) -> anyhow::Result<()> {
        let found = self.value(name)?;
        ensure!(found == expected, "{name} is {found:#x}, not {expected:#x}");
        Ok(())
    }
}

fn firmware(context: &Context, path: &Path) -> VmBuilder {
    context.openvmm().arg("--uefi-firmware").arg(path)
}

fn boot_with(context: &Context, processors: u32, memory: &str, size: u64) -> anyhow::Result<()> {
    let mut vm = firmware(context, &context.environment.test_firmware)
        .args(["-p", &processors.to_string()])
        .args(["--uuid", "00112233-4455-6677-8899-aabbccddeeff"])
        .memory(memory)
        .start()?;
    let found = Findings::wait(&mut vm)?;
    found.expect("config.processors", processors.into())?;
    found.expect("acpi.madt.processors", processors.into())?;
    found.expect("config.memory.size", size)?;
    found.expect("config.guid.low", 0x6677_4455_0011_2233)?;
    found.expect("config.guid.high", 0xffee_ddcc_bbaa_9988)?;
    // Serial ports, a console on COM1, MTRRs that are set, no VMBus.
    found.expect("config.flags", 1 | 1 << 7 | 1 << 28 | 1 << 30)?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

pub(super) fn one_processor(context: &Context) -> anyhow::Result<()> {
    boot_with(context, 1, "512M", 512 << 20)
}

pub(super) fn four_processors(context: &Context) -> anyhow::Result<()> {
    boot_with(context, 4, "512M", 512 << 20)
}

pub(super) fn little_memory(context: &Context) -> anyhow::Result<()> {
    boot_with(context, 1, "64M", 64 << 20)
}

pub(super) fn memory_above_4g(context: &Context) -> anyhow::Result<()> {
    boot_with(context, 2, "8G", 8 << 30)
}

/// A machine with PCI functions tells of them, and the options of the firmware arrive there.
pub(super) fn options_and_pci(context: &Context) -> anyhow::Result<()> {
    let mut vm = firmware(context, &context.environment.test_firmware)
        .args(["--disk", "mem:1M", "--irqchip", "split"])
        .args(["--uefi-console-mode", "none", "--disable-frontpage"])
        .args(["--default-boot-always-attempt", "--uefi-force-dma-bounce"])
        .args(["--uefi-enable-memory-protections"])
        .start()?;
    let found = Findings::wait(&mut vm)?;
    let flags = 1 | 3 << 7 | 1 << 14 | 1 << 15 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 32;
    found.expect("config.flags", flags)?;
    found.expect("config.tables", 3)?;
    found.expect("acpi.mcfg", 60)?;
    found.expect("config.apertures.segment", 0)?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// A reset loads the firmware again, as it was.
pub(super) fn resets(context: &Context) -> anyhow::Result<()> {
    let mut vm = firmware(context, &context.environment.test_firmware)
        .args(["-p", "2"])
        .start()?;
    let first = Findings::wait(&mut vm)?;
    for boots in [2, 3] {
        vm.type_line("r")?;
        Findings::wait(&mut vm)?.expect_boot(boots, &first)?;
    }
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// The firmware finds the same machine whether it is an image or in an IGVM file.
pub(super) fn in_an_igvm_file(context: &Context) -> anyhow::Result<()> {
    let args = ["-p", "2", "--uuid", "00112233-4455-6677-8899-aabbccddeeff"];
    let mut vm = firmware(context, &context.environment.test_firmware)
        .args(args)
        .start()?;
    let direct = Findings::wait(&mut vm)?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;

    let igvm = MadeIgvm::uefi(&context.environment)?;
    let mut vm = igvm
        .openvmm(&context.environment, context.limit, "uefi")
        .args(args)
        .start()?;
    Findings::wait(&mut vm)?.expect_boot(1, &direct)?;
    vm.type_line("r")?;
    Findings::wait(&mut vm)?.expect_boot(2, &direct)?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}

/// A crash of the firmware ends the VM.
pub(super) fn crashes(context: &Context) -> anyhow::Result<()> {
    let mut vm = firmware(context, &context.environment.test_firmware).start()?;
    Findings::wait(&mut vm)?;
    vm.type_line("c")?;
    vm.expect_halt(OpenvmmExit::TripleFault, "triple_fault")
}

/// A machine whose host changes its firmware.
struct Host<'a> {
    context: &'a Context,
    dir: TempDir,
}

impl Host<'_> {
    fn firmware(&self) -> PathBuf {
        self.dir.path().join("MSVM.fd")
    }

    fn vmgs(&self) -> PathBuf {
        self.dir.path().join("vm.vmgs")
    }

    fn install(&self, version: u16) -> anyhow::Result<()> {
        let image = fs::read(&self.context.environment.test_firmware)?;
        fs::write(self.firmware(), firmware_of_version(&image, version)?)?;
        Ok(())
    }

    /// Starts the machine, and checks the version that runs.
    fn start(&self, version: &str) -> anyhow::Result<(Vm, Findings)> {
        self.start_with(version, &[])
    }

    fn start_with(&self, version: &str, args: &[&str]) -> anyhow::Result<(Vm, Findings)> {
        let mut vm = firmware(self.context, &self.firmware())
            .arg("--vmgs")
            .arg(self.vmgs())
            .args(["--hibernation", "on"])
            .args(args)
            .start()?;
        let found = Findings::wait(&mut vm)?;
        ensure!(found.version == version, "{} runs", found.version);
        Ok((vm, found))
    }

    fn expect_next_start(&self, expected: &str) -> anyhow::Result<()> {
        let status = HibernationStatus::of(&self.context.environment, &self.vmgs())?;
        ensure!(status.next_start == expected, "{status:?}");
        Ok(())
    }
}

/// A guest that hibernates is started on the same firmware with the same configuration, though the host has another.
pub(super) fn wakes_on_its_own_firmware(context: &Context) -> anyhow::Result<()> {
    let host = Host {
        context,
        dir: TempDir::new()?,
    };
    host.install(1)?;
    let (mut vm, first) = host.start("001")?;
    ensure!(first.value("config.flags")? & 1 << 6 != 0, "{first:#?}");
    vm.type_line("h")?;
    vm.expect_halt(OpenvmmExit::Hibernated, "hibernate")?;
    host.expect_next_start("resume")?;

    host.install(2)?;
    let (mut vm, found) = host.start("001")?;
    found.expect_boot(2, &first)?;
    vm.type_line("r")?;
    Findings::wait(&mut vm)?.expect_boot(3, &first)?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    // The firmware did not hand over to an operating system, so the session goes on.
    host.expect_next_start("resume")?;

    let (mut vm, found) = host.start("001")?;
    found.expect_boot(4, &first)?;
    vm.type_line("o")?;
    vm.wait_for_output("handed over")?;
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")?;
    host.expect_next_start("cold")?;

    let (mut vm, found) = host.start("002")?;
    ensure!(
        found.value("image.digest")? != first.value("image.digest")?,
        "the image of version 2 is that of version 1"
    );
    vm.type_line("p")?;
    vm.expect_halt(OpenvmmExit::PoweredOff, "power_off")
}
