//! Guests with a guest of their own, on a host with SVM: a guest in long mode that executes an inner guest in real mode.

use crate::code::Code;
use crate::machine::Access;
use crate::machine::Bus;
use crate::machine::CODE;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::hypervisor;
use crate::machine::region;
use crate::machine::run;
use std::thread;
use std::time::Duration;
use virt::Error;
use virt::HostKind;
use virt::Hypervisor as _;
use virt::MappingAccess;
use virt::ProcessorFeatures;
use virt::Vp;
use virt::VpStop;
use virt::x86::Registers;
use virt::x86::SegmentRegister;
use virt::x86::VpState;
use virt::x86::nested::NestedFormat;
use virt::x86::nested::NestedStateError;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const EFER: u32 = 0xc000_0080;
const EFER_SVME: u64 = 1 << 12;

/// Where things are in the guest's memory.
const COUNTER: u64 = 0x2000;
/// Nonzero makes the inner guest halt.
const STOP: u64 = 0x2004;
const INNER_CODE: u64 = 0x3000;
const VMCB: u64 = 0x6000;
const HOST_SAVE: u64 = 0x7000;
const PAGE_TABLES: u64 = 0x1_0000;
/// All of the above.
const USED: usize = 0x2_0000;
/// The port that the outer guest writes the inner guest's exit code to.
const EXIT_PORT: u16 = 0x1234;
/// #VMEXIT because of `hlt`.
const VMEXIT_HLT: u32 = 0x78;

/// Sizes of nested state without an inner guest, and with one.
const HEADER: usize = 128;
const WITH_VMCB: usize = 4224;

fn nested(on: bool) -> Options {
    Options {
        processor: ProcessorFeatures {
            nested: on,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// 64-bit code that sets the host save area, and then executes the inner guest and reports its exit, again and again.
fn outer_code() -> Code {
    let set_up = Code::new()
        // mov ecx, VM_HSAVE_PA; mov eax, HOST_SAVE; xor edx, edx; wrmsr
        .raw(&[0xb9])
        .raw(&VM_HSAVE_PA.to_le_bytes())
        .raw(&[0xb8])
        .raw(&(HOST_SAVE as u32).to_le_bytes())
        .raw(&[0x31, 0xd2, 0x0f, 0x30]);
    set_up
        // mov eax, VMCB; vmrun
        .raw(&[0xb8])
        .raw(&(VMCB as u32).to_le_bytes())
        .raw(&[0x0f, 0x01, 0xd8])
        // mov eax, [rax + EXITCODE]; mov dx, EXIT_PORT; out dx, eax
        .raw(&[0x8b, 0x40, 0x70, 0x66, 0xba])
        .raw(&EXIT_PORT.to_le_bytes())
        .raw(&[0xef])
        .done()
        // jmp to "mov eax, VMCB", 20 bytes before the next instruction
        .raw(&[0xeb, 0xec])
}

/// 16-bit code that counts in memory and in a register until it is told to halt.
fn counting() -> Code {
    Code::new()
        .inc_dword(COUNTER as u16)
        .inc_ebx()
        // cmp byte [STOP], 0; je to the start; hlt
        .raw(&[0x80, 0x3e])
        .raw(&(STOP as u16).to_le_bytes())
        .raw(&[0])
        .raw(&[0x74, 0xf2])
        .hlt()
}

/// A VMCB (AMD's manual, volume 2, appendix B) of a guest in real mode, with nested paging and an intercept of `hlt`.
fn vmcb() -> Vec<u8> {
    let mut vmcb = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        vmcb[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    // Intercepts: HLT, and VMRUN, which must be.
    put(0x00c, &(1_u32 << 24).to_le_bytes());
    put(0x010, &1_u32.to_le_bytes());
    // The address space id, which is not 0; nested paging, its tables.
    put(0x058, &1_u32.to_le_bytes());
    put(0x090, &1_u64.to_le_bytes());
    put(0x0b0, &PAGE_TABLES.to_le_bytes());
    // ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR: selector, attributes, limit, base.
    for (n, attributes) in [0x93, 0x9b, 0x93, 0x93, 0x93, 0x93, 0, 0x82, 0, 0x8b_u16]
        .into_iter()
        .enumerate()
    {
        put(0x402 + n * 16, &attributes.to_le_bytes());
        put(0x404 + n * 16, &0xffff_u32.to_le_bytes());
    }
    for (offset, value) in [
        (0x4d0, EFER_SVME),
        (0x558, 0x10),
        (0x560, 0x400),
        (0x568, 0xffff_0ff0),
        (0x570, 2),
        (0x578, INNER_CODE),
        (0x5d8, INNER_CODE),
        (0x668, 0x0007_0406_0007_0406),
    ] {
        put(offset, &value.to_le_bytes());
    }
    vmcb
}

/// Tables that map the first 32 MiB to themselves, for the outer guest and as nested page tables.
fn write_page_tables(machine: &Machine) {
    // Present, writable, for user mode; and a large page.
    let (table, page) = (7, 0x87);
    machine.write(PAGE_TABLES, &((PAGE_TABLES + 0x1000) | table).to_le_bytes());
    machine.write(
        PAGE_TABLES + 0x1000,
        &((PAGE_TABLES + 0x2000) | table).to_le_bytes(),
    );
    for n in 0..16 {
        machine.write(
            PAGE_TABLES + 0x2000 + n * 8,
            &(n << 21 | page).to_le_bytes(),
        );
    }
}

/// A machine whose outer guest is `outer`, and whose inner guest is `inner`.
fn machine(outer: &Code, inner: &Code) -> Machine {
    let machine = Machine::new(outer, nested(true));
    machine.write(INNER_CODE, inner.bytes());
    machine.write(VMCB, &vmcb());
    write_page_tables(&machine);
    machine
}

/// Registers of the outer guest at its start: long mode, SVM enabled.
fn outer_registers(r: Registers) -> Registers {
    let data = SegmentRegister {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        attributes: 0xc093,
    };
    Registers {
        rip: CODE,
        rsp: CODE,
        rflags: 2,
        cs: SegmentRegister {
            selector: 8,
            attributes: 0xa09b,
            ..data
        },
        ds: data,
        es: data,
        ss: data,
        cr0: 0x8000_0033,
        cr3: PAGE_TABLES,
        cr4: 0x20,
        efer: EFER_SVME | 0x500,
        ..r
    }
}

/// Binds the VP and puts it to the outer guest's start.
fn start(machine: &mut Machine) -> Box<dyn Vp> {
    let mut vp = machine.binders.remove(0).bind().unwrap();
    let registers = outer_registers(vp.registers().unwrap());
    vp.set_registers(&registers).unwrap();
    vp
}

/// Runs until the inner guest has counted on.
fn run_until_it_counts(machine: &Machine, vp: &mut dyn Vp) {
    let before = machine.read_u32(COUNTER);
    while machine.read_u32(COUNTER) == before {
        let kick = vp.kicker();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                kick.kick();
            });
            assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::Requested);
        });
    }
}

/// A machine like `machine` and its VP, with their state.
fn clone(machine: &Machine, state: &VpState) -> (Machine, Box<dyn Vp>) {
    let mut memory = vec![0; USED];
    let at_start = GuestAddress(0);
    machine
        .memory
        .map()
        .read_slice(&mut memory, at_start)
        .unwrap();
    let mut clone = Machine::new(&Code::new(), nested(true));
    clone.write(0, &memory);
    let mut vp = clone.binders.remove(0).bind().unwrap();
    let bytes = mesh::payload::encode(state);
    vp.restore(&mesh::payload::decode(&bytes).unwrap()).unwrap();
    (clone, vp)
}

/// Nested state without the outer guest's DR6, which KVM does not keep over an inner guest.
fn without_dr6(state: &VpState) -> Vec<u8> {
    let mut nested = state.nested.clone();
    nested[HEADER + 0x568..][..8].fill(0);
    nested
}

fn flags(state: &VpState) -> u8 {
    state.nested[0]
}

/// Tells the inner guest to halt, and checks that the outer guest goes on from there.
fn assert_inner_guest_ends(machine: &Machine, vp: &mut dyn Vp) {
    machine.write(STOP, &[1]);
    let bus = Bus::stopping(vp);
    assert_eq!(
        run(vp, &bus),
        [Access::PortWrite(
            EXIT_PORT,
            VMEXIT_HLT.to_le_bytes().to_vec()
        )]
    );
    assert_eq!(vp.save().unwrap().nested.len(), HEADER);
    assert_eq!(vp.registers().unwrap().rax as u32, VMEXIT_HLT);
}

#[test]
fn the_host_has_what_these_tests_need() {
    let host = hypervisor().host_info().unwrap();
    assert!(host.nested && host.kind == HostKind::Svm, "{host:?}");
}

#[test]
fn an_inner_guest_goes_on_in_another_partition() {
    let mut original = machine(&outer_code(), &counting());
    let mut original_vp = start(&mut original);
    run_until_it_counts(&original, &mut *original_vp);
    let state = original_vp.save().unwrap();
    assert_eq!((state.nested.len(), flags(&state)), (WITH_VMCB, 1));
    assert_eq!(
        state.registers.cr0 & 1,
        0,
        "the registers are the inner guest's"
    );

    // Three generations.
    let (mut machine, mut vp) = clone(&original, &state);
    // Saving what was restored and did not run changes nothing.
    let again = vp.save().unwrap();
    assert!(without_dr6(&again) == without_dr6(&state));
    assert_eq!(again.registers, state.registers);
    for _ in 0..3 {
        run_until_it_counts(&machine, &mut *vp);
        let counted = machine.read_u32(COUNTER);
        let rbx = vp.registers().unwrap().rbx as u32;
        assert!(counted == rbx || counted == rbx + 1, "{counted} {rbx}");
        (machine, vp) = clone(&machine, &vp.save().unwrap());
    }
    assert_inner_guest_ends(&machine, &mut *vp);
    // The first one goes on too.
    run_until_it_counts(&original, &mut *original_vp);
    assert_inner_guest_ends(&original, &mut *original_vp);
}

#[test]
fn interrupts_held_back_are_state_without_an_inner_guest() {
    // clgi; out DONE, al; stgi; out DONE, al
    let outer = Code::new().raw(&[0x0f, 0x01, 0xdd]).done();
    let outer = outer.raw(&[0x0f, 0x01, 0xdc]).done();
    let mut original = machine(&outer, &Code::new());
    let mut vp = start(&mut original);
    assert_eq!(
        vp.save().unwrap().nested,
        NestedFormat::Svm.state_at_reset()
    );
    let bus = Bus::stopping(&*vp);
    run(&mut *vp, &bus);
    let state = vp.save().unwrap();
    let mut expected = NestedFormat::Svm.state_at_reset();
    expected[1] = 0;
    assert_eq!(state.nested, expected);

    let (_machine, mut vp) = clone(&original, &state);
    assert_eq!(vp.save().unwrap().nested, expected);
    let bus = Bus::stopping(&*vp);
    run(&mut *vp, &bus);
    assert_eq!(
        vp.save().unwrap().nested,
        NestedFormat::Svm.state_at_reset()
    );
}

#[test]
fn a_reset_leaves_the_inner_guest() {
    let mut machine = machine(&outer_code(), &counting());
    let rom = region(0xffff_0000, 0x1_0000, &[]);
    let start_code = Code::new().mov_dx(EXIT_PORT).out_dx_al().done();
    rom.write_slice(start_code.bytes(), vm_memory::MemoryRegionAddress(0xfff0))
        .unwrap();
    machine.partition.map(rom, MappingAccess::ReadOnly).unwrap();
    let mut vp = start(&mut machine);
    for _ in 0..2 {
        run_until_it_counts(&machine, &mut *vp);
        vp.reset().unwrap();
        let state = vp.save().unwrap();
        assert_eq!(state.nested, NestedFormat::Svm.state_at_reset());
        assert_eq!((state.registers.efer, state.registers.rip), (0, 0xfff0));
        let bus = Bus::stopping(&*vp);
        assert_eq!(
            run(&mut *vp, &bus).len(),
            1,
            "it starts at the reset vector"
        );
        // The guest has an inner guest again.
        machine.write(VMCB, &vmcb());
        let registers = outer_registers(vp.registers().unwrap());
        vp.set_registers(&registers).unwrap();
    }
    run_until_it_counts(&machine, &mut *vp);
    assert_inner_guest_ends(&machine, &mut *vp);
}

#[test]
fn an_inner_guest_that_shuts_down_shuts_the_vp_down() {
    let mut machine = machine(&outer_code(), &Code::new().ud2());
    // The inner guest has no interrupt table.
    machine.write(VMCB + 0x484, &[0; 4]);
    let mut vp = start(&mut machine);
    for _ in 0..2 {
        assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::TripleFault);
        vp.reset().unwrap();
        assert_eq!(
            vp.save().unwrap().nested,
            NestedFormat::Svm.state_at_reset()
        );
        let registers = outer_registers(vp.registers().unwrap());
        vp.set_registers(&registers).unwrap();
    }
    machine.write(VMCB, &vmcb());
    machine.write(INNER_CODE, counting().bytes());
    run_until_it_counts(&machine, &mut *vp);
}

#[test]
fn a_state_can_be_restored_over_an_inner_guest() {
    let mut machine = machine(&outer_code(), &counting());
    let mut vp = start(&mut machine);
    let early = vp.save().unwrap();
    run_until_it_counts(&machine, &mut *vp);
    let late = vp.save().unwrap();
    vp.restore(&early).unwrap();
    let again = vp.save().unwrap();
    assert_eq!(
        (&again.nested, again.registers),
        (&early.nested, early.registers)
    );
    run_until_it_counts(&machine, &mut *vp);
    vp.restore(&late).unwrap();
    assert_eq!(vp.save().unwrap().registers, late.registers);
    run_until_it_counts(&machine, &mut *vp);
    assert_inner_guest_ends(&machine, &mut *vp);
}

#[test]
fn hostile_nested_state_changes_nothing() {
    let mut machine = machine(&outer_code(), &counting());
    let mut vp = start(&mut machine);
    run_until_it_counts(&machine, &mut *vp);
    let good = vp.save().unwrap();
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 6] = [
        (|b| b.clear(), "missing"),
        (
            |b| *b = NestedFormat::Vmx.state_at_reset(),
            "with Intel VMX",
        ),
        (|b| b.truncate(HEADER + 1), "truncated"),
        (|b| b.push(0), "more than the 4224"),
        (|b| b[0] |= 0x20, "bits 0x20 of its flags"),
        (|b| b[12] = 0xff, "of its VMCB is not that of a page of RAM"),
    ];
    for (change, expected) in changes {
        let mut state = good.clone();
        change(&mut state.nested);
        state.registers.rip = 0x1234;
        match vp.restore(&state) {
            Err(Error::NestedState { source, .. }) => {
                assert!(source.to_string().contains(expected), "{source}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        let now = vp.save().unwrap();
        assert!(now.nested == good.nested);
        assert_eq!(now.registers, good.registers);
    }
    // KVM refuses what is wrong in a VMCB: an address space id of 0. The VP is not in guest mode then.
    let mut state = good.clone();
    state.nested[HEADER + 0x58] = 0;
    assert!(matches!(vp.restore(&state), Err(Error::Call { .. })));
    assert_eq!(vp.save().unwrap().nested.len(), HEADER);
    vp.restore(&good).unwrap();
    run_until_it_counts(&machine, &mut *vp);

    let mut off = Machine::new(&Code::new(), nested(false));
    let mut vp = off.bsp();
    assert_eq!(vp.save().unwrap().nested, [0_u8; 0]);
    let mut state = vp.save().unwrap();
    state.nested = good.nested;
    let Err(Error::NestedState { source, .. }) = vp.restore(&state) else {
        panic!("not refused");
    };
    assert_eq!(source, NestedStateError::NotOffered(WITH_VMCB));
}

#[test]
fn without_nested_virtualization_svm_is_hidden() {
    let has_svm = |state: &VpState| {
        let leaf = |leaf| state.cpuid.iter().find(|e| e.leaf == leaf);
        let bit = leaf(0x8000_0001).is_some_and(|e| e.ecx & 1 << 2 != 0);
        (bit, leaf(0x8000_000a).is_some())
    };
    let accesses = [
        Code::new().rdmsr(VM_CR),
        Code::new().rdmsr(VM_HSAVE_PA),
        Code::new().wrmsr(VM_HSAVE_PA, HOST_SAVE),
        Code::new().wrmsr(EFER, EFER_SVME),
    ];
    for (on, code) in [false, true]
        .into_iter()
        .flat_map(|on| accesses.iter().map(move |code| (on, code)))
    {
        let mut machine = Machine::new(&code.clone().done(), nested(on));
        let general_protection = Code::new().mov_dx(EXIT_PORT).out_dx_al().done().hlt();
        machine.handle(13, 0x1800, &general_protection);
        let mut vp = machine.bsp();
        assert_eq!(has_svm(&vp.save().unwrap()), (on, on));
        let bus = Bus::stopping(&*vp);
        let accesses = run(&mut *vp, &bus);
        let raised = accesses
            .iter()
            .any(|access| matches!(access, Access::PortWrite(EXIT_PORT, _)));
        assert_eq!(raised, !on, "{:x?}: {accesses:x?}", code.bytes());
    }
}
