//! `cargo xtask bench`: measures openvmm and Debian's QEMU.

mod table;

use crate::build;
use crate::guest::GuestFile;
use crate::guest_run::Arg;
use crate::guest_run::GuestPlace;
use crate::guest_run::GuestRun;
use crate::guest_run::PlaceOption;
use crate::host_kvm::HostKvm;
use crate::process;
use crate::shared_writer::SharedWriter;
use crate::workspace;
use anyhow::Context;
use clap::Args;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;
use table::BenchSample;
use table::BenchTable;

/// The firmware and option ROMs that QEMU reads for a machine without devices.
const QEMU_FILES: [&str; 5] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/multiboot_dma.bin",
    "/usr/share/qemu/pvh.bin",
];

/// Measure openvmm and QEMU in turns, in one run on one machine.
///
/// Start-up time is read from the kernel's trace: from the process's exec to the first kvm_entry. Memory is
/// what is resident besides the guest's RAM. Serial output is checked byte by byte.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// How many times to measure each VMM.
    #[arg(long, value_name = "N", default_value_t = 5)]
    repetitions: u32,
    /// How much the guest prints in the serial port measurement, in KiB. Default: 10 MiB, and 256 KiB in the lab,
    /// where QEMU takes 0.4 ms for each byte.
    #[arg(long, value_name = "KIB")]
    serial_kib: Option<u32>,
    /// Take only these measurements: linux, uefi, devices, hibernation. Can be repeated.
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// Where to run the guests.
    #[arg(long = "where", value_enum, default_value_t)]
    place: PlaceOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Skip the micro-benchmarks (cargo bench).
    #[arg(long)]
    no_micro: bool,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let (place, why) = args.place.decide();
    eprintln!("bench: guests run {why}");
    let serial_kib = args.serial_kib.unwrap_or(match place {
        GuestPlace::Host => 10 << 10,
        GuestPlace::Lab => 256,
    });
    let mut arguments = vec![
        Arg::Text(format!("--repetitions={}", args.repetitions)),
        Arg::Text(format!("--serial-kib={serial_kib}")),
        "--bench-initrd".into(),
        Arg::Guest(GuestFile::BenchInitrd),
    ];
    let groups = args.only.iter().map(|group| format!("--only={group}"));
    arguments.extend(groups.map(Arg::Text));
    let limit = Duration::from_secs(3600 * 4);
    let run = GuestRun {
        host_programs: vec!["qemu-system-x86_64".to_owned()],
        host_files: QEMU_FILES.map(PathBuf::from).into(),
        ..GuestRun::of_vmm_tests("vmm_bench", arguments, place, limit)
    };
    let output = SharedWriter::new(CollectedSamples::default());
    let status = run.run(place, Box::new(output.clone()))?;
    let samples = output.lock().samples()?;
    let mut table = BenchTable::of(&samples);
    table.add_single("stripped release binary", "KiB", "openvmm", stripped_kib()?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&table)?);
    } else {
        print!("{table}");
    }
    anyhow::ensure!(status == 0, "the measurements ended with status {status}");
    if !args.no_micro {
        micro_benchmarks(args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The size of a stripped release binary of openvmm.
fn stripped_kib() -> anyhow::Result<f64> {
    let program = build::binaries(&["openvmm".to_owned()])?
        .pop()
        .context("cargo built no openvmm")?;
    let stripped = tempfile::NamedTempFile::new()?;
    process::run(
        Command::new("strip")
            .arg("-o")
            .args([stripped.path(), &program.path]),
    )?;
    Ok(stripped.path().metadata()?.len() as f64 / 1024.0)
}

/// Runs the workspace's micro-benchmarks. Those that need a KVM use this machine's, even a software KVM.
fn micro_benchmarks(to_stderr: bool) -> anyhow::Result<()> {
    let kvm = HostKvm::detect();
    let has_kvm = !matches!(kvm, HostKvm::Absent | HostKvm::NotPermitted);
    let metadata = workspace::metadata()?;
    for package in &metadata.packages {
        for target in package.targets.iter().filter(|target| target.is_bench()) {
            // A benchmark with required features needs KVM.
            let features = target.required_features.join(",");
            if !features.is_empty() && !has_kvm {
                let (package, bench) = (&package.name, &target.name);
                eprintln!("bench: skipping {bench} of {package}: {kvm}");
                continue;
            }
            let mut command = workspace::cargo();
            command.args(["bench", "--package", package.name.as_str()]);
            command.args(["--bench", &target.name, "--features", &features]);
            if to_stderr {
                command.stdout(io::stderr());
            }
            process::run(&mut command)?;
        }
    }
    Ok(())
}

/// Collects the samples, and copies them to standard error to show progress.
#[derive(Default)]
struct CollectedSamples(Vec<u8>);

impl CollectedSamples {
    fn samples(&self) -> anyhow::Result<Vec<BenchSample>> {
        String::from_utf8_lossy(&self.0)
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not a sample: {line}")))
            .collect()
    }
}

impl Write for CollectedSamples {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(bytes)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
