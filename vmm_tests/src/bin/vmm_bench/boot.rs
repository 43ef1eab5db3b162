//! Measures the time from the start of the process to the guest's `/init`, and the process's memory after that.

use crate::memory;
use crate::vmm::MEMORY_MIB;
use crate::vmm::Vmm;
use anyhow::Context;
use std::io::BufRead;
use std::io::BufReader;
use std::time::Instant;
use vmm_tests::Environment;

pub(crate) struct BootMeasurement {
    pub(crate) milliseconds: f64,
    pub(crate) resident_kib: f64,
}

/// Boots Linux with `options` (each followed by a space) on its command line.
pub(crate) fn run(
    vmm: Vmm,
    environment: &Environment,
    options: &str,
) -> anyhow::Result<BootMeasurement> {
    let started = Instant::now();
    let mut running = vmm.start(
        environment,
        &environment.kernel,
        Some(&format!("console=ttyS0 {options}vmtest=")),
    )?;
    let output = running.0.stdout.take().context("no output")?;
    let mut milliseconds = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if line.contains("vmtest: init") {
            milliseconds = Some(started.elapsed().as_secs_f64() * 1000.0);
        }
        if line.contains("vmtest: ready") {
            return Ok(BootMeasurement {
                milliseconds: milliseconds.context("the guest was ready before /init started")?,
                resident_kib: memory::resident_kib(running.0.id(), MEMORY_MIB << 10)?,
            });
        }
    }
    anyhow::bail!("the guest did not boot")
}
