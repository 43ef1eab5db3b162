//! Measures openvmm beside QEMU: `cargo xtask bench` builds it, runs it where there is a KVM, and makes
//! a table of the samples that it prints, one JSON object a line.
#![forbid(unsafe_code)]

mod boot;
mod first_entry;
mod memory;
mod serial;
mod vmm;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use vmm::Vmm;
use vmm_tests::Environment;

#[derive(Parser)]
struct Args {
    /// How often each VMM is measured.
    #[arg(long, default_value_t = 5)]
    repetitions: u32,
    /// What the guest prints in the serial measurement, in KiB.
    #[arg(long, default_value_t = 10 << 10)]
    serial_kib: u32,
}

/// One measurement.
#[derive(Serialize)]
struct Sample {
    metric: &'static str,
    unit: &'static str,
    vmm: &'static str,
    value: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let environment = Environment::from_env()?;
    for _ in 0..args.repetitions {
        for vmm in Vmm::ALL {
            let measured = |metric, unit, value| print(metric, unit, vmm, value);
            measured(
                "start to first guest instruction",
                "ms",
                first_entry::milliseconds(vmm, &environment)
                    .with_context(|| format!("{}: first instruction", vmm.name()))?,
            )?;
            let loud = boot::run(vmm, &environment, "")
                .with_context(|| format!("{}: boot", vmm.name()))?;
            measured("start to init", "ms", loud.milliseconds)?;
            let quiet = boot::run(vmm, &environment, "quiet ")
                .with_context(|| format!("{}: quiet boot", vmm.name()))?;
            measured("start to init, quiet", "ms", quiet.milliseconds)?;
            measured("resident beyond guest RAM", "KiB", quiet.resident_kib)?;
            measured(
                "serial output",
                "KiB/s",
                serial::kib_per_second(vmm, &environment, args.serial_kib)
                    .with_context(|| format!("{}: serial output", vmm.name()))?,
            )?;
        }
    }
    Ok(())
}

fn print(metric: &'static str, unit: &'static str, vmm: Vmm, value: f64) -> anyhow::Result<()> {
    let sample = Sample {
        metric,
        unit,
        vmm: vmm.name(),
        value,
    };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
