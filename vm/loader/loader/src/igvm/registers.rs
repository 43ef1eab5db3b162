//! The registers of VP contexts.

use super::error::VpContextProblem;
use crate::BootSegment;
use crate::DescriptorTable;
use crate::VpRegister;
use igvm_format::NativeVpContext;
use igvm_format::VsmRegister;
use std::collections::HashSet;

const CR0_PE: u64 = 1 << 0;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The flag that always reads 1.
const RFLAGS_ONE: u64 = 1 << 1;

const MTRR_DEF_TYPE: u32 = 0x2ff;
const PAT: u32 = 0x277;
/// The variable MTRRs that a processor has here.
const VARIABLE_MTRRS: u32 = 8;
const FIXED_MTRRS: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];

/// All registers that a native context states, checked against what a processor can start with.
pub(super) fn from_native(context: &NativeVpContext) -> Result<Vec<VpRegister>, VpContextProblem> {
    let c = context;
    let data = BootSegment {
        selector: c.data_selector.get(),
        base: c.data_base.get().into(),
        limit: c.data_limit.get(),
        attributes: c.data_attributes.get(),
    };
    let gs_base = c.gs_base.get();
    let registers = vec![
        VpRegister::Rax(c.rax.get()),
        VpRegister::Rcx(c.rcx.get()),
        VpRegister::Rdx(c.rdx.get()),
        VpRegister::Rbx(c.rbx.get()),
        VpRegister::Rsp(c.rsp.get()),
        VpRegister::Rbp(c.rbp.get()),
        VpRegister::Rsi(c.rsi.get()),
        VpRegister::Rdi(c.rdi.get()),
        VpRegister::R8(c.r8.get()),
        VpRegister::R9(c.r9.get()),
        VpRegister::R10(c.r10.get()),
        VpRegister::R11(c.r11.get()),
        VpRegister::R12(c.r12.get()),
        VpRegister::R13(c.r13.get()),
        VpRegister::R14(c.r14.get()),
        VpRegister::R15(c.r15.get()),
        VpRegister::Rip(c.rip.get()),
        VpRegister::Rflags(c.rflags.get() | RFLAGS_ONE),
        VpRegister::Idtr(DescriptorTable {
            base: c.idtr_base.get(),
            limit: c.idtr_limit.get(),
        }),
        VpRegister::Gdtr(DescriptorTable {
            base: c.gdtr_base.get(),
            limit: c.gdtr_limit.get(),
        }),
        VpRegister::Cs(BootSegment {
            selector: c.code_selector.get(),
            base: c.code_base.get().into(),
            limit: c.code_limit.get(),
            attributes: c.code_attributes.get(),
        }),
        VpRegister::Ds(data),
        VpRegister::Es(data),
        VpRegister::Ss(data),
        VpRegister::Fs(data),
        VpRegister::Gs(BootSegment {
            base: gs_base,
            ..data
        }),
        VpRegister::Cr0(c.cr0.get()),
        VpRegister::Cr3(c.cr3.get()),
        VpRegister::Cr4(c.cr4.get()),
        VpRegister::Efer(c.efer.get()),
    ];
    check(&registers)?;
    Ok(registers)
}

/// The registers of a list, checked likewise.
pub(super) fn from_vsm(list: &[VsmRegister]) -> Result<Vec<VpRegister>, VpContextProblem> {
    let mut seen = HashSet::new();
    let registers: Vec<_> = list
        .iter()
        .map(|register| {
            let name = register.name.get();
            if !seen.insert(name) {
                return Err(VpContextProblem::DuplicateRegister { name });
            }
            register_from_vsm(register).ok_or(VpContextProblem::UnknownRegister { name })
        })
        .collect::<Result<_, _>>()?;
    check(&registers)?;
    Ok(registers)
}

/// A register by its number in Hyper-V's interface (Hypervisor Top-Level Functional Specification, 7.9.1).
pub fn register_from_vsm(register: &VsmRegister) -> Option<VpRegister> {
    let value = register.as_scalar();
    let table = || {
        let table = register.as_table();
        DescriptorTable {
            base: table.base.get(),
            limit: table.limit.get(),
        }
    };
    let segment = || {
        let segment = register.as_segment();
        BootSegment {
            selector: segment.selector.get(),
            base: segment.base.get(),
            limit: segment.limit.get(),
            attributes: segment.attributes.get(),
        }
    };
    Some(match register.name.get() {
        0x2_0000 => VpRegister::Rax(value),
        0x2_0001 => VpRegister::Rcx(value),
        0x2_0002 => VpRegister::Rdx(value),
        0x2_0003 => VpRegister::Rbx(value),
        0x2_0004 => VpRegister::Rsp(value),
        0x2_0005 => VpRegister::Rbp(value),
        0x2_0006 => VpRegister::Rsi(value),
        0x2_0007 => VpRegister::Rdi(value),
        0x2_0008 => VpRegister::R8(value),
        0x2_0009 => VpRegister::R9(value),
        0x2_000a => VpRegister::R10(value),
        0x2_000b => VpRegister::R11(value),
        0x2_000c => VpRegister::R12(value),
        0x2_000d => VpRegister::R13(value),
        0x2_000e => VpRegister::R14(value),
        0x2_000f => VpRegister::R15(value),
        0x2_0010 => VpRegister::Rip(value),
        0x2_0011 => VpRegister::Rflags(value | RFLAGS_ONE),
        0x4_0000 => VpRegister::Cr0(value),
        0x4_0001 => VpRegister::Cr2(value),
        0x4_0002 => VpRegister::Cr3(value),
        0x4_0003 => VpRegister::Cr4(value),
        0x4_0004 => VpRegister::Cr8(value),
        0x6_0000 => VpRegister::Es(segment()),
        0x6_0001 => VpRegister::Cs(segment()),
        0x6_0002 => VpRegister::Ss(segment()),
        0x6_0003 => VpRegister::Ds(segment()),
        0x6_0004 => VpRegister::Fs(segment()),
        0x6_0005 => VpRegister::Gs(segment()),
        0x6_0006 => VpRegister::Ldtr(segment()),
        0x6_0007 => VpRegister::Tr(segment()),
        0x7_0000 => VpRegister::Idtr(table()),
        0x7_0001 => VpRegister::Gdtr(table()),
        0x8_0001 => VpRegister::Efer(value),
        0x8_0004 => VpRegister::Msr(PAT, value),
        0x8_000e => VpRegister::Msr(MTRR_DEF_TYPE, value),
        name @ 0x8_0010..0x8_0020 if name - 0x8_0010 < VARIABLE_MTRRS => {
            VpRegister::Msr(0x200 + 2 * (name - 0x8_0010), value)
        }
        name @ 0x8_0040..0x8_0050 if name - 0x8_0040 < VARIABLE_MTRRS => {
            VpRegister::Msr(0x201 + 2 * (name - 0x8_0040), value)
        }
        name @ 0x8_0070..=0x8_007a => {
            VpRegister::Msr(FIXED_MTRRS[(name - 0x8_0070) as usize], value)
        }
        _ => return None,
    })
}

/// Refuses values with which a processor cannot enter the guest. Registers that are not set are as after reset, where
/// they fit each other.
fn check(registers: &[VpRegister]) -> Result<(), VpContextProblem> {
    let (mut cr0, mut cr4, mut efer) = (0, 0, 0);
    for register in registers {
        match *register {
            VpRegister::Cr0(value) => cr0 = value,
            VpRegister::Cr4(value) => cr4 = value,
            VpRegister::Efer(value) => efer = value,
            _ => {}
        }
    }
    let require = |holds, register, value, expected| {
        let problem = VpContextProblem::Value {
            register,
            value,
            expected,
        };
        if holds { Ok(()) } else { Err(problem) }
    };
    let paging = cr0 & CR0_PG != 0;
    let long = efer & EFER_LMA != 0;
    let protected = !paging || cr0 & CR0_PE != 0;
    require(protected, "CR0", cr0, "PG needs PE")?;
    let enabled = efer & EFER_LME != 0;
    require(!long || enabled, "EFER", efer, "LMA needs LME")?;
    require(!long || paging, "EFER", efer, "LMA needs CR0.PG")?;
    require(
        !(enabled && paging) || long,
        "EFER",
        efer,
        "LME with CR0.PG needs LMA",
    )?;
    let pae = cr4 & CR4_PAE != 0;
    require(!long || pae, "CR4", cr4, "EFER.LMA needs PAE")?;
    let bits = if cr4 & CR4_LA57 != 0 { 57 } else { 48 };
    for register in registers {
        let (name, address) = match *register {
            VpRegister::Rip(rip) if long => ("RIP", rip),
            VpRegister::Gdtr(table) => ("the base of GDTR", table.base),
            VpRegister::Idtr(table) => ("the base of IDTR", table.base),
            _ => continue,
        };
        let unused = 64 - bits;
        let canonical = ((address << unused).cast_signed() >> unused).cast_unsigned() == address;
        require(canonical, name, address, "the address is not canonical")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn native(change: impl FnOnce(&mut NativeVpContext)) -> Result<Vec<VpRegister>, String> {
        let mut context = NativeVpContext::read_from_bytes(&[0; 232]).unwrap();
        context.cr0 = 0x8000_0001.into();
        context.cr4 = 0x20.into();
        context.efer = 0x500.into();
        change(&mut context);
        from_native(&context).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_native_context_sets_every_register_that_it_states() {
        let registers = native(|context| {
            context.r12 = 7.into();
            context.gs_base = 0x1000.into();
            context.data_selector = 0x10.into();
        })
        .unwrap();
        assert_eq!(registers.len(), 30);
        assert!(registers.contains(&VpRegister::R12(7)));
        assert!(registers.contains(&VpRegister::Rflags(2)));
        let gs = BootSegment {
            selector: 0x10,
            base: 0x1000,
            limit: 0,
            attributes: 0,
        };
        assert!(registers.contains(&VpRegister::Gs(gs)));
        assert!(registers.contains(&VpRegister::Fs(BootSegment { base: 0, ..gs })));
    }

    #[test]
    fn values_that_no_processor_starts_with_are_refused_by_name() {
        let refused = |change: fn(&mut NativeVpContext)| native(change).unwrap_err();
        assert_eq!(
            refused(|context| context.cr0 = 0x8000_0000.into()),
            "has 0x80000000 in CR0: PG needs PE"
        );
        assert_eq!(
            refused(|context| context.efer = 0x400.into()),
            "has 0x400 in EFER: LMA needs LME"
        );
        assert_eq!(
            refused(|context| context.cr4 = 0.into()),
            "has 0x0 in CR4: EFER.LMA needs PAE"
        );
        assert_eq!(
            refused(|context| context.efer = 0x100.into()),
            "has 0x100 in EFER: LME with CR0.PG needs LMA"
        );
        assert_eq!(
            refused(|context| context.rip = (1 << 47).into()),
            "has 0x800000000000 in RIP: the address is not canonical"
        );
        assert!(native(|context| context.rip = (!0u64 << 47).into()).is_ok());
    }

    #[test]
    fn lists_are_read_by_the_numbers_of_the_interface() {
        let list = [
            VsmRegister::scalar(0x2_0010, 0x10_0000),
            VsmRegister::scalar(0x8_000e, 0xc00),
            VsmRegister::scalar(0x8_0014, 1),
            VsmRegister::scalar(0x8_0044, 2),
            VsmRegister::scalar(0x8_007a, 6),
            VsmRegister::table(0x7_0001, 0x1000, 0x1f),
        ];
        let table = DescriptorTable {
            base: 0x1000,
            limit: 0x1f,
        };
        assert_eq!(
            from_vsm(&list).unwrap(),
            [
                VpRegister::Rip(0x10_0000),
                VpRegister::Msr(0x2ff, 0xc00),
                VpRegister::Msr(0x208, 1),
                VpRegister::Msr(0x209, 2),
                VpRegister::Msr(0x26f, 6),
                VpRegister::Gdtr(table),
            ]
        );
        let twice = [list[0], list[0]];
        assert_eq!(
            from_vsm(&twice).unwrap_err().to_string(),
            "sets the register 0x00020010 twice"
        );
        let unknown = [VsmRegister::scalar(0x8_0018, 0)];
        assert_eq!(
            from_vsm(&unknown).unwrap_err().to_string(),
            "sets the register 0x00080018, which is not known"
        );
    }
}
