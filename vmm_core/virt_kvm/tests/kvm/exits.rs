//! Guest accesses that reach the bus, and the ways a run ends.

use crate::code::Code;
use crate::machine::Access;
use crate::machine::Bus;
use crate::machine::DONE;
use crate::machine::DONE_GPA;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::run;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use std::ops::RangeInclusive;
use std::sync::Arc;
use virt::Enlightenment;
use virt::ProcessorFeatures;
use virt::RunError;
use virt::VpIndex;
use virt::VpStop;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::SegmentRegister;

const MMIO: u64 = 0xd000_0000;

#[test]
fn ports() {
    let code = Code::new()
        .mov_dx(0x1234)
        .mov_al(0x5a)
        .out_dx_al()
        .in_ax_dx()
        .out_dx_ax()
        .mov_eax(0x1122_3344)
        .out_dx_eax()
        .done();
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    bus.answers.lock().push(0xbeef);
    assert_eq!(
        run(&mut *vp, &bus),
        [
            Access::PortWrite(0x1234, vec![0x5a]),
            Access::PortRead(0x1234, 2),
            Access::PortWrite(0x1234, vec![0xef, 0xbe]),
            Access::PortWrite(0x1234, vec![0x44, 0x33, 0x22, 0x11]),
        ]
    );
}

#[test]
fn string_io_goes_element_by_element() {
    let code = Code::new()
        .mov_dx(0x1234)
        .mov_si(0x2000)
        .mov_cx(5)
        .rep_outsb()
        .mov_di(0x3000)
        .mov_cx(3)
        .rep_insw()
        .done();
    let mut machine = Machine::new(&code, Options::default());
    machine.write(0x2000, b"hello");
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    bus.answers.lock().extend([0x0605, 0x0403, 0x0201]);
    let accesses = run(&mut *vp, &bus);
    let writes: Vec<_> = b"hello"
        .iter()
        .map(|&b| Access::PortWrite(0x1234, vec![b]))
        .collect();
    assert_eq!(accesses[..5], writes);
    // KVM may read ahead for `ins`, but for no more than is asked.
    assert_eq!(accesses[5..], vec![Access::PortRead(0x1234, 2); 3]);
    assert_eq!(machine.read_u32(0x3000), 0x0403_0201);
    assert_eq!(machine.read_u32(0x3004) & 0xffff, 0x0605);
}

#[test]
fn mmio() {
    let code = Code::new()
        .mov_eax(0x1122_3344)
        .store_es_eax(0x10)
        .store_es_al(0x21)
        .load_es_eax(0x30)
        .store_eax(0x2000)
        .done();
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp_with_es(MMIO);
    let bus = Bus::stopping(&*vp);
    bus.answers.lock().push(0xcafe_f00d);
    assert_eq!(
        run(&mut *vp, &bus),
        [
            Access::MmioWrite(MMIO + 0x10, vec![0x44, 0x33, 0x22, 0x11]),
            Access::MmioWrite(MMIO + 0x21, vec![0x44]),
            Access::MmioRead(MMIO + 0x30, 4),
        ]
    );
    assert_eq!(machine.read_u32(0x2000), 0xcafe_f00d);
}

/// An MSR that no processor has, and one that all have.
const UNKNOWN_MSR: u32 = 0x1234_5678;
const SYSENTER_CS: u32 = 0x174;
/// A CPUID leaf in the range of hypervisors that KVM does not use.
const ENLIGHTENED_LEAF: u32 = 0x4000_0101;

/// Takes an MSR that KVM knows. The tests' bus answers for it.
#[derive(Debug)]
struct Intercepts;

impl Enlightenment for Intercepts {
    fn name(&self) -> &'static str {
        "intercepts"
    }
    fn cpuid(&self, _: VpTopology) -> Vec<CpuidEntry> {
        vec![CpuidEntry {
            leaf: ENLIGHTENED_LEAF,
            ebx: 0x1234,
            ..Default::default()
        }]
    }
    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &[SYSENTER_CS..=SYSENTER_CS]
    }
    fn read_msr(&self, _: VpIndex, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _: VpIndex, _: u32, _: u64) -> Option<()> {
        None
    }
    fn reset(&self) {}
    fn save(&self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&()))
    }
    fn restore(&self, _: &SavedState) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[test]
fn msrs_that_are_unknown_or_intercepted() {
    let code = Code::new()
        .wrmsr(UNKNOWN_MSR, 0x1_0000_0002)
        .rdmsr(UNKNOWN_MSR)
        .store_eax(0x2000)
        .wrmsr(SYSENTER_CS, 0x10)
        .rdmsr(SYSENTER_CS)
        .store_eax(0x2004)
        .done();
    let options = Options {
        processor: ProcessorFeatures {
            enlightenments: vec![Arc::new(Intercepts)],
            ..Default::default()
        },
        ..Default::default()
    };
    let mut machine = Machine::new(&code, options);
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    bus.msrs.lock().extend([(UNKNOWN_MSR, 0), (SYSENTER_CS, 0)]);
    assert_eq!(
        run(&mut *vp, &bus),
        [
            Access::WriteMsr(UNKNOWN_MSR, 0x1_0000_0002),
            Access::ReadMsr(UNKNOWN_MSR),
            Access::WriteMsr(SYSENTER_CS, 0x10),
            Access::ReadMsr(SYSENTER_CS),
        ]
    );
    assert_eq!(machine.read_u32(0x2000), 2);
    assert_eq!(machine.read_u32(0x2004), 0x10);
    let cpuid = vp.save().unwrap().cpuid;
    let leaf = cpuid.iter().find(|e| e.leaf == ENLIGHTENED_LEAF);
    assert_eq!(leaf.unwrap().ebx, 0x1234);
}

#[test]
fn an_msr_that_the_bus_does_not_have_raises_gp() {
    let code = Code::new().rdmsr(UNKNOWN_MSR).done();
    let mut machine = Machine::new(&code, Options::default());
    machine.handle(
        13,
        0x1800,
        &Code::new().mov_dx(0x1234).out_dx_al().done().hlt(),
    );
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    let accesses = run(&mut *vp, &bus);
    assert_eq!(accesses[0], Access::ReadMsr(UNKNOWN_MSR));
    assert!(matches!(accesses[1], Access::PortWrite(0x1234, _)));
}

#[test]
fn a_vp_runs_again_after_a_triple_fault_and_a_reset() {
    let mut machine = Machine::new(&Code::new().ud2(), Options::default());
    let mut vp = machine.bsp();
    let before = vp.registers().unwrap();
    let mut r = before;
    // Protected mode without a usable interrupt table.
    r.cr0 |= 1;
    r.idtr.limit = 0;
    vp.set_registers(&r).unwrap();
    let bus = Bus::stopping(&*vp);
    assert_eq!(vp.run(&bus).unwrap(), VpStop::TripleFault);
    vp.reset().unwrap();
    machine.write(
        0x1000,
        Code::new().mov_dx(0x1234).out_dx_al().done().bytes(),
    );
    vp.set_registers(&before).unwrap();
    assert_eq!(run(&mut *vp, &bus).len(), 1);
}

#[test]
fn emulation_failure_shows_the_instruction() {
    // fbstp tbyte [es:0x10]: no emulator has it, and memory that is not RAM needs one.
    let instruction = [0x26, 0xdf, 0x36, 0x10, 0x00];
    let mut machine = Machine::new(&Code::new().raw(&instruction), Options::default());
    let mut vp = machine.bsp_with_es(MMIO);
    match vp.run(&Bus::stopping(&*vp)) {
        Err(RunError::Emulation { rip, bytes, .. }) => {
            assert_eq!(rip, 0x1000);
            assert_eq!(bytes[..5], instruction);
        }
        other => panic!("{other:?}"),
    }
}

/// A user process may do what it wants: it does not end its VM.
#[test]
fn an_instruction_of_a_user_process_that_kvm_cannot_emulate_is_undefined() {
    const GDT: u64 = 0x2000;
    const IDT: u64 = 0x3000;
    const HANDLER: u64 = 0x1100;
    // 32-bit code: fbstp tbyte [MMIO].
    let mut instruction = vec![0xdf, 0x35];
    instruction.extend((MMIO as u32).to_le_bytes());
    let mut machine = Machine::new(&Code::new().raw(&instruction), Options::default());
    machine.write(HANDLER, Code::new().mov_al(0x55).done().bytes());
    // Flat segments of privilege level 3, and a gate for #UD that stays at it.
    machine.write(GDT + 0x18, &0x00cf_fb00_0000_ffff_u64.to_le_bytes());
    machine.write(GDT + 0x20, &0x00cf_f300_0000_ffff_u64.to_le_bytes());
    machine.write(IDT + 6 * 8, &(0xee00_001b_0000_u64 | HANDLER).to_le_bytes());
    let mut vp = machine.bsp();
    let mut r = vp.registers().unwrap();
    let segment = |selector, attributes| SegmentRegister {
        base: 0,
        limit: u32::MAX,
        selector,
        attributes,
    };
    r.cs = segment(0x1b, 0xc0fb);
    for data in [&mut r.ds, &mut r.es, &mut r.fs, &mut r.gs, &mut r.ss] {
        *data = segment(0x23, 0xc0f3);
    }
    (r.gdtr.base, r.gdtr.limit) = (GDT, 0x27);
    (r.idtr.base, r.idtr.limit) = (IDT, 0xff);
    r.cr0 |= 1;
    // The process may use I/O ports.
    r.rflags = 0x3002;
    vp.set_registers(&r).unwrap();
    let bus = Bus::stopping(&*vp);
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    let after = vp.registers().unwrap();
    assert_eq!((after.rax & 0xff, after.cs.selector), (0x55, 0x1b));
    // The handler's return address is the instruction.
    assert_eq!(machine.read_u32(after.rsp), 0x1000);
}

#[test]
fn a_stop_from_a_device_lets_no_further_instruction_run() {
    let code = Code::new()
        .done()
        .inc_dword(0x2000)
        .mov_dx(0x1234)
        .out_dx_al()
        .done();
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    assert_eq!(run(&mut *vp, &bus), []);
    assert_eq!(machine.read_u32(0x2000), 0);
    assert_eq!(vp.registers().unwrap().rip, 0x1002);
    assert_eq!(run(&mut *vp, &bus).len(), 1);
    assert_eq!(machine.read_u32(0x2000), 1);
}

#[test]
fn a_stop_while_reading_completes_the_read() {
    let code = Code::new()
        .mov_dx(DONE)
        .in_al_dx()
        .inc_ebx()
        .load_es_eax(0xf00)
        .inc_ebx()
        .hlt();
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp_with_es(MMIO);
    let bus = Bus::stopping(&*vp);
    bus.answers.lock().extend([0x1122_3344, 0x5a]);
    assert_eq!(run(&mut *vp, &bus), [Access::PortRead(DONE, 1)]);
    let r = vp.registers().unwrap();
    assert_eq!((r.rax & 0xff, r.rbx, r.rip), (0x5a, 0, 0x1004));
    assert_eq!(run(&mut *vp, &bus), [Access::MmioRead(DONE_GPA, 4)]);
    let r = vp.registers().unwrap();
    assert_eq!((r.rax, r.rbx, r.rip), (0x1122_3344, 1, 0x100b));
}
