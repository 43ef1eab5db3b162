//! Registers between KVM's structs and `virt`'s.

use kvm_bindings::kvm_dtable;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_sregs2;
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

/// KVM's two halves as one.
pub(crate) fn registers(r: &kvm_regs, s: &kvm_sregs) -> Registers {
    Registers {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
        cs: segment(&s.cs),
        ds: segment(&s.ds),
        es: segment(&s.es),
        fs: segment(&s.fs),
        gs: segment(&s.gs),
        ss: segment(&s.ss),
        tr: segment(&s.tr),
        ldtr: segment(&s.ldt),
        gdtr: table(&s.gdt),
        idtr: table(&s.idt),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base: s.apic_base,
    }
}

/// The general registers, RIP and RFLAGS.
pub(crate) fn kvm_regs_of(r: &Registers) -> kvm_regs {
    kvm_regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

/// The segment and control registers. An interrupt being injected is not among them: it is one of the
/// VP's events.
pub(crate) fn kvm_sregs_of(r: &Registers) -> kvm_sregs {
    kvm_sregs {
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
        cr0: r.cr0,
        cr2: r.cr2,
        cr3: r.cr3,
        cr4: r.cr4,
        cr8: r.cr8,
        efer: r.efer,
        apic_base: r.apic_base,
        interrupt_bitmap: [0; 4],
    }
}

/// The same with the PDPTRs.
pub(crate) fn kvm_sregs2_of(r: &Registers, pdptrs: Option<[u64; 4]>) -> kvm_sregs2 {
    let s = kvm_sregs_of(r);
    kvm_sregs2 {
        cs: s.cs,
        ds: s.ds,
        es: s.es,
        fs: s.fs,
        gs: s.gs,
        ss: s.ss,
        tr: s.tr,
        ldt: s.ldt,
        gdt: s.gdt,
        idt: s.idt,
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base: s.apic_base,
        flags: if pdptrs.is_some() {
            kvm_bindings::KVM_SREGS2_FLAGS_PDPTRS_VALID.into()
        } else {
            0
        },
        pdptrs: pdptrs.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_survive(base: u64, limit: u32, selector: u16, bits: u32) {
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
