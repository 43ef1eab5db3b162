//! Measures openvmm and QEMU. `cargo xtask bench` builds it, runs it on a machine with KVM, and makes a table of the samples
//! that it prints: one JSON object per line.
#![forbid(unsafe_code)]

mod boot;
mod first_entry;
mod memory;
mod serial;
mod uefi;
mod vmm;

use anyhow::Context;
use clap::Parser;
use clap::ValueEnum;
use serde::Serialize;
use std::path::PathBuf;
use vmm::Vmm;
use vmm_tests::Environment;

#[derive(Parser)]
struct VmmBenchArgs {
    /// How many times each VMM is measured.
    #[arg(long, default_value_t = 5)]
    repetitions: u32,
    /// How much the guest prints in the serial measurement, in KiB.
    #[arg(long, default_value_t = 10 << 10)]
    serial_kib: u32,
    /// The initramfs with the guest's part of measurements.
    #[arg(long)]
    bench_initrd: PathBuf,
    /// Which measurements to take.
    #[arg(long, value_enum, default_values_t = [Group::Linux, Group::Uefi, Group::Devices, Group::Hibernation])]
    only: Vec<Group>,
    /// Which VMMs to measure, in this order.
    #[arg(long, value_enum, default_values_t = [Vmm::Openvmm, Vmm::Qemu])]
    vmm: Vec<Vmm>,
}

/// How many starts in a row measure the time to the guest's first instruction, which is short and varies much.
const STARTS: u32 = 5;

/// Measurements that are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// A kernel without firmware: start, memory, serial port.
    Linux,
    /// A kernel started by UEFI firmware.
    Uefi,
    /// Rates of disk and network.
    Devices,
    /// Hibernation.
    Hibernation,
}

/// One measurement.
#[derive(Serialize)]
struct MeasuredSample {
    metric: &'static str,
    unit: &'static str,
    vmm: &'static str,
    value: f64,
}

fn main() -> anyhow::Result<()> {
    let args = VmmBenchArgs::parse();
    let environment = Environment::from_env()?;
    for _ in 0..args.repetitions {
        for &vmm in &args.vmm {
            for group in &args.only {
                measure(*group, vmm, &environment, &args)
                    .with_context(|| format!("{}: {group:?}", vmm.name()))?;
            }
        }
    }
    Ok(())
}

fn measure(
    group: Group,
    vmm: Vmm,
    environment: &Environment,
    args: &VmmBenchArgs,
) -> anyhow::Result<()> {
    let measured = |metric, unit, value| print(metric, unit, vmm, value);
    match group {
        Group::Linux => {
            for _ in 0..STARTS {
                let entry =
                    first_entry::milliseconds(vmm, environment).context("first instruction")?;
                measured("start to first guest instruction", "ms", entry)?;
            }
            let loud = boot::run(vmm, environment, "").context("boot")?;
            measured("start to init", "ms", loud.milliseconds)?;
            let quiet = boot::run(vmm, environment, "quiet ").context("quiet boot")?;
            measured("start to init, quiet", "ms", quiet.milliseconds)?;
            measured("resident beyond guest RAM", "KiB", quiet.resident_kib)?;
            let rate = serial::kib_per_second(vmm, environment, args.serial_kib)
                .context("serial output")?;
            measured("serial output", "KiB/s", rate)
        }
        Group::Uefi => {
            let boot = uefi::boot(vmm, environment)?;
            measured("UEFI: start to init, quiet", "ms", boot)?;
            if vmm == Vmm::Openvmm {
                let [stored, unchanged] = uefi::boots_with_store(environment)?;
                measured("UEFI: the same, firmware stored", "ms", stored)?;
                measured("UEFI: the same, firmware unchanged", "ms", unchanged)?;
            }
            Ok(())
        }
        Group::Devices => {
            let rates = uefi::rates(vmm, environment, &args.bench_initrd)?;
            measured(
                "disk: random reads of 4 KiB, depth 1",
                "1/s",
                rates.random_1,
            )?;
            measured(
                "disk: random reads of 4 KiB, depth 32",
                "1/s",
                rates.random_32,
            )?;
            measured("disk: sequential reads of 1 MiB", "MiB/s", rates.sequential)?;
            measured("network: TCP stream to the host", "MiB/s", rates.send)?;
            measured("network: TCP stream from the host", "MiB/s", rates.receive)
        }
        Group::Hibernation => {
            let hibernation = uefi::hibernation(vmm, environment)?;
            measured("hibernating to exit", "ms", hibernation.to_exit)?;
            measured("start to resumed", "ms", hibernation.to_resumed)
        }
    }
}

fn print(metric: &'static str, unit: &'static str, vmm: Vmm, value: f64) -> anyhow::Result<()> {
    let sample = MeasuredSample {
        metric,
        unit,
        vmm: vmm.name(),
        value,
    };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
