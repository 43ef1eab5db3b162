//! KVM's register structs as `virt`'s.

use crate::fields::copy_fields;
use crate::fields::same_fields;
use kvm_bindings::*;
use virt::x86::DebugRegisters;
use virt::x86::Registers;
use virt::x86::SegmentRegister;
use virt::x86::TableRegister;

const UNUSABLE: u32 = 1 << 16;

fn segment(s: &kvm_segment) -> SegmentRegister {
    let bit = |value: u8, shift: u32| u32::from(value & 1) << shift;
    SegmentRegister {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        attributes: u32::from(s.type_ & 0xf)
            | bit(s.s, 4)
            | u32::from(s.dpl & 3) << 5
            | bit(s.present, 7)
            | bit(s.avl, 12)
            | bit(s.l, 13)
            | bit(s.db, 14)
            | bit(s.g, 15)
            | bit(s.unusable, 16),
    }
}

fn kvm_segment_of(s: &SegmentRegister) -> kvm_segment {
    let bit = |shift: u32| (s.attributes >> shift & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: (s.attributes & 0xf) as u8,
        s: bit(4),
        dpl: (s.attributes >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        // A segment that is not present cannot be used, whether or not the writer said so.
        unusable: u8::from(s.attributes & UNUSABLE != 0 || bit(7) == 0),
        padding: 0,
    }
}

fn table(t: &kvm_dtable) -> TableRegister {
    TableRegister {
        base: t.base,
        limit: t.limit,
    }
}

fn kvm_dtable_of(t: &TableRegister) -> kvm_dtable {
    kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    }
}

same_fields!(take_general, give_general: Registers, kvm_regs {
    rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags
});

same_fields!(take_control, give_control: Registers, kvm_sregs {
    cr0 cr2 cr3 cr4 cr8 efer apic_base
});

/// Sets the segment, table and control registers.
pub(crate) fn take_special(to: &mut Registers, from: &kvm_sregs) {
    take_control(to, from);
    to.cs = segment(&from.cs);
    to.ds = segment(&from.ds);
    to.es = segment(&from.es);
    to.fs = segment(&from.fs);
    to.gs = segment(&from.gs);
    to.ss = segment(&from.ss);
    to.tr = segment(&from.tr);
    to.ldtr = segment(&from.ldt);
    to.gdtr = table(&from.gdt);
    to.idtr = table(&from.idt);
}

/// The general registers, RIP and RFLAGS.
pub(crate) fn kvm_regs_of(r: &Registers) -> kvm_regs {
    let mut regs = kvm_regs::default();
    give_general(&mut regs, r);
    regs
}

/// The segment, table and control registers. An interrupt being injected is not among them: it is one of the VP's
/// events.
pub(crate) fn kvm_sregs_of(r: &Registers) -> kvm_sregs {
    let mut sregs = kvm_sregs {
        cs: kvm_segment_of(&r.cs),
        ds: kvm_segment_of(&r.ds),
        es: kvm_segment_of(&r.es),
        fs: kvm_segment_of(&r.fs),
        gs: kvm_segment_of(&r.gs),
        ss: kvm_segment_of(&r.ss),
        tr: kvm_segment_of(&r.tr),
        ldt: kvm_segment_of(&r.ldtr),
        gdt: kvm_dtable_of(&r.gdtr),
        idt: kvm_dtable_of(&r.idtr),
        ..Default::default()
    };
    give_control(&mut sregs, r);
    sregs
}

/// The same with the PDPTRs.
pub(crate) fn kvm_sregs2_of(r: &Registers, pdptrs: Option<[u64; 4]>) -> kvm_sregs2 {
    let valid = u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID);
    let mut sregs = kvm_sregs2 {
        flags: pdptrs.map_or(0, |_| valid),
        pdptrs: pdptrs.unwrap_or_default(),
        ..Default::default()
    };
    let from = kvm_sregs_of(r);
    copy_fields!(sregs, from; cs ds es fs gs ss tr ldt gdt idt cr0 cr2 cr3 cr4 cr8 efer apic_base);
    sregs
}

pub(crate) fn debug_registers(d: &kvm_debugregs) -> DebugRegisters {
    DebugRegisters {
        addresses: d.db,
        dr6: d.dr6,
        dr7: d.dr7,
    }
}

pub(crate) fn kvm_debugregs_of(d: &DebugRegisters) -> kvm_debugregs {
    kvm_debugregs {
        db: d.addresses,
        dr6: d.dr6,
        dr7: d.dr7,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_round_trip(base: u64, limit: u32, selector: u16, bits: u32) {
            // Bits 8 to 11 of a descriptor's attributes are part of its limit.
            let present = bits & 0x80 != 0;
            let attributes = bits & 0xf0ff | if present { bits & UNUSABLE } else { UNUSABLE };
            let s = SegmentRegister { base, limit, selector, attributes };
            prop_assert_eq!(segment(&kvm_segment_of(&s)), s);
        }
    }

    #[test]
    fn a_long_mode_code_segment() {
        let s = kvm_segment_of(&SegmentRegister {
            base: 0,
            limit: 0xffff_ffff,
            selector: 8,
            attributes: 0xa09b,
        });
        assert_eq!((s.type_, s.s, s.dpl, s.present), (0xb, 1, 0, 1));
        assert_eq!((s.l, s.db, s.g, s.unusable), (1, 0, 1, 0));
    }
}
