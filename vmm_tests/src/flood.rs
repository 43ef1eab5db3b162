//! Checks that no byte of a guest's serial output is lost.

use crate::OpenvmmExit;
use crate::Stdio;
use crate::VmBuilder;
use crate::payload;
use anyhow::ensure;

/// Starts `openvmm`, which has no arguments yet, with a guest that prints `bytes` bytes to its serial port, and checks each
/// of them.
pub fn bare_flood(openvmm: VmBuilder, bytes: usize) -> anyhow::Result<()> {
    let lines = u32::try_from(bytes / payload::FLOOD_LINE)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("flood");
    std::fs::write(&path, payload::flood(lines))?;
    let vm = openvmm
        .arg("--kernel")
        .arg(&path)
        .stdio(Stdio::Null)
        .start()?;
    vm.expect_halt(OpenvmmExit::TripleFault, "triple_fault")?;
    let output = vm.output();
    for (index, line) in output.chunks(payload::FLOOD_LINE).enumerate() {
        let number = u32::try_from(index + 1)?;
        ensure!(
            line == payload::flood_line(number).as_bytes(),
            "line {number} is damaged: {:?}",
            String::from_utf8_lossy(line)
        );
    }
    ensure!(
        output.len() == bytes,
        "{} bytes instead of {bytes}",
        output.len()
    );
    Ok(())
}
