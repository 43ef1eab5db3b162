//! The values of parameters.

use super::IgvmMachine;
use igvm_format::ParameterKind;

/// The type of RAM in a memory map.
const RAM: u16 = 0;

/// The value of a parameter on this machine: `None` if it has none, which leaves the area as it is.
///
/// Fails if the machine cannot provide the parameter at all.
pub(super) fn value(
    kind: ParameterKind,
    machine: &IgvmMachine<'_>,
) -> Result<Option<Vec<u8>>, Unsupported> {
    let table = |signature: &[u8; 4]| {
        let mut tables = machine.acpi.iter();
        let table = tables.find(|table| table.signature == *signature)?;
        Some(table.alone())
    };
    Ok(match kind {
        ParameterKind::VpCount => Some(machine.vp_count.to_le_bytes().into()),
        // Memory is private to the guest.
        ParameterKind::EnvironmentInfo => Some(0u32.to_le_bytes().into()),
        ParameterKind::CommandLine => {
            let line = machine.command_line.unwrap_or_default();
            Some([line.as_bytes(), b"\0"].concat())
        }
        ParameterKind::MemoryMap => Some(memory_map(machine)),
        ParameterKind::MmioRanges => Some(mmio_ranges(machine)),
        ParameterKind::Madt => table(b"APIC"),
        ParameterKind::Srat => table(b"SRAT"),
        ParameterKind::Slit => table(b"SLIT"),
        ParameterKind::Pptt => table(b"PPTT"),
        ParameterKind::DeviceTree => return Err(Unsupported),
    })
}

/// The machine cannot provide a parameter.
pub(super) struct Unsupported;

/// The RAM ranges, ascending, and an entry without pages at the end.
fn memory_map(machine: &IgvmMachine<'_>) -> Vec<u8> {
    let ram = machine.layout.ram().iter();
    let entries = ram.map(|ram| (ram.start / crate::PAGE, ram.len() / crate::PAGE));
    let mut map = Vec::new();
    for (start, count) in entries.chain([(0, 0)]) {
        map.extend_from_slice(&start.to_le_bytes());
        map.extend_from_slice(&count.to_le_bytes());
        map.extend_from_slice(&RAM.to_le_bytes());
        map.extend_from_slice(&[0; 6]);
    }
    map
}

/// The low and the high range, each as its first page and number of pages. A range that does not exist is empty, at 0.
fn mmio_ranges(machine: &IgvmMachine<'_>) -> Vec<u8> {
    let ranges = [Some(machine.low_mmio), machine.high_mmio];
    let pages = ranges.map(|range| {
        range.map_or([0, 0], |range| {
            [range.start / crate::PAGE, range.len() / crate::PAGE]
        })
    });
    pages
        .as_flattened()
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect()
}
