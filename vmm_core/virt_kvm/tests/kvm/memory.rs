//! Memory slots.

use crate::code::Code;
use crate::machine::Access;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::region;
use crate::machine::run;
use guest_memory::MemoryRange;
use std::slice;
use virt::Error;
use virt::MappingAccess;
use vm_memory::Bytes as _;
use vm_memory::MemoryRegionAddress;

const ROM: u64 = 0xd000_0000;

fn range(start: u64, pages: u64) -> MemoryRange {
    MemoryRange {
        start,
        end: start + pages * 4096,
    }
}

#[test]
fn a_read_only_mapping_reads_as_memory_and_writes_as_mmio() {
    let code = Code::new()
        .load_es_eax(0)
        .store_eax(0x2000)
        .mov_eax(7)
        .store_es_eax(4)
        .done()
        .jmp(0);
    let mut machine = Machine::new(&code, Options::default());
    let rom = region(ROM, 4096, b"ROM!");
    let content = |offset| rom.read_obj::<u32>(MemoryRegionAddress(offset)).unwrap();
    let map = |access| machine.partition.map(rom.clone(), access).unwrap();
    map(MappingAccess::ReadOnly);
    let mut vp = machine.binders.remove(0).bind().unwrap();
    let mut r = vp.registers().unwrap();
    (r.cs.base, r.cs.selector, r.es.base, r.rip) = (0, 0, ROM, 0x1000);
    vp.set_registers(&r).unwrap();
    let bus = Bus::stopping(&*vp);
    let write = Access::MmioWrite(ROM + 4, vec![7, 0, 0, 0]);
    assert_eq!(run(&mut *vp, &bus), slice::from_ref(&write));
    assert_eq!(machine.read_u32(0x2000), u32::from_le_bytes(*b"ROM!"));
    assert_eq!(content(4), 0);
    map(MappingAccess::ReadWrite);
    assert_eq!(run(&mut *vp, &bus), []);
    assert_eq!(content(4), 7);
    map(MappingAccess::ReadOnly);
    assert_eq!(run(&mut *vp, &bus), slice::from_ref(&write));
    machine.partition.unmap(range(ROM, 1)).unwrap();
    assert_eq!(run(&mut *vp, &bus), [Access::MmioRead(ROM, 4), write]);
}

#[test]
fn impossible_mappings_are_refused() {
    let machine = Machine::new(&Code::new(), Options::default());
    let partition = &machine.partition;
    let invalid = |result| matches!(result, Err(Error::InvalidRequest(_)));
    let map = |gpa, size| partition.map(region(gpa, size, &[]), MappingAccess::ReadWrite);
    // RAM is from 0 to 32 MiB.
    assert!(invalid(map(0x01ff_f000, 0x2000)));
    assert!(invalid(map(0x1000, 0x1000)));
    assert!(invalid(map(0x0300_0800, 0x1000)));
    map(0x0300_0000, 0x2000).unwrap();
    assert!(invalid(map(0x0300_1000, 0x1000)));
    assert!(invalid(partition.unmap(range(0x0300_0000, 1))));
    partition.unmap(range(0x0300_0000, 2)).unwrap();
    assert!(invalid(partition.unmap(range(0x0300_0000, 2))));
    map(0x0300_1000, 0x1000).unwrap();
}
