//! Measures the rate of a guest's serial output, and checks every byte.

use crate::vmm::Vmm;
use anyhow::Context;
use std::io::BufReader;
use std::io::Read;
use std::time::Instant;
use vmm_tests::Environment;
use vmm_tests::payload;

/// Boots a guest that prints `kib` KiB. Returns the rate from its first line to its last.
pub(crate) fn kib_per_second(vmm: Vmm, environment: &Environment, kib: u32) -> anyhow::Result<f64> {
    let lines = (kib << 10) / payload::FLOOD_LINE as u32;
    let kernel = tempfile::NamedTempFile::new()?;
    std::fs::write(kernel.path(), payload::flood(lines))?;
    let mut running = vmm.start(environment, kernel.path(), None)?;
    let output = running.0.stdout.take().context("no output")?;
    let mut output = BufReader::with_capacity(64 << 10, output);
    let mut line = [0; payload::FLOOD_LINE];
    let mut started = None;
    for number in 1..=lines {
        output
            .read_exact(&mut line)
            .with_context(|| format!("the output ended before line {number} of {lines}"))?;
        let expected = payload::flood_line(number);
        anyhow::ensure!(
            line == expected.as_bytes(),
            "line {number} is damaged: {:?}",
            String::from_utf8_lossy(&line)
        );
        started.get_or_insert_with(Instant::now);
    }
    let elapsed = started.context("nothing was printed")?.elapsed();
    Ok(f64::from(kib) / elapsed.as_secs_f64())
}
