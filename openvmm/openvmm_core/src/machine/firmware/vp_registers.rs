//! The registers that a loaded image sets, on a VP of the hypervisor.

use loader::BootSegment;
use loader::DescriptorTable;
use loader::VpRegister;
use virt::Vp;
use virt::x86::Registers;
use virt::x86::SegmentRegister;
use virt::x86::TableRegister;

/// Sets `values` on `vp`. Its other registers stay as they are after reset.
pub(crate) fn set_registers(vp: &mut dyn Vp, values: &[VpRegister]) -> Result<(), virt::Error> {
    let mut registers = vp.registers()?;
    let msrs = apply(&mut registers, values);
    vp.set_registers(&registers)?;
    vp.set_msrs(&msrs)
}

/// Applies `values` to `registers`, and returns those that are MSRs.
fn apply(registers: &mut Registers, values: &[VpRegister]) -> Vec<(u32, u64)> {
    let mut msrs = Vec::new();
    for value in values {
        match *value {
            VpRegister::Rax(value) => registers.rax = value,
            VpRegister::Rbx(value) => registers.rbx = value,
            VpRegister::Rcx(value) => registers.rcx = value,
            VpRegister::Rdx(value) => registers.rdx = value,
            VpRegister::Rsi(value) => registers.rsi = value,
            VpRegister::Rdi(value) => registers.rdi = value,
            VpRegister::Rsp(value) => registers.rsp = value,
            VpRegister::Rbp(value) => registers.rbp = value,
            VpRegister::R8(value) => registers.r8 = value,
            VpRegister::R9(value) => registers.r9 = value,
            VpRegister::R10(value) => registers.r10 = value,
            VpRegister::R11(value) => registers.r11 = value,
            VpRegister::R12(value) => registers.r12 = value,
            VpRegister::R13(value) => registers.r13 = value,
            VpRegister::R14(value) => registers.r14 = value,
            VpRegister::R15(value) => registers.r15 = value,
            VpRegister::Rip(value) => registers.rip = value,
            VpRegister::Rflags(value) => registers.rflags = value,
            VpRegister::Cr0(value) => registers.cr0 = value,
            VpRegister::Cr2(value) => registers.cr2 = value,
            VpRegister::Cr3(value) => registers.cr3 = value,
            VpRegister::Cr4(value) => registers.cr4 = value,
            VpRegister::Cr8(value) => registers.cr8 = value,
            VpRegister::Efer(value) => registers.efer = value,
            VpRegister::Gdtr(value) => registers.gdtr = table(value),
            VpRegister::Idtr(value) => registers.idtr = table(value),
            VpRegister::Cs(value) => registers.cs = segment(value),
            VpRegister::Ds(value) => registers.ds = segment(value),
            VpRegister::Es(value) => registers.es = segment(value),
            VpRegister::Fs(value) => registers.fs = segment(value),
            VpRegister::Gs(value) => registers.gs = segment(value),
            VpRegister::Ss(value) => registers.ss = segment(value),
            VpRegister::Tr(value) => registers.tr = segment(value),
            VpRegister::Ldtr(value) => registers.ldtr = segment(value),
            VpRegister::Msr(index, value) => msrs.push((index, value)),
        }
    }
    msrs
}

fn segment(segment: BootSegment) -> SegmentRegister {
    SegmentRegister {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        attributes: segment.attributes.into(),
    }
}

fn table(table: DescriptorTable) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_sets_its_register_and_no_other() {
        let code = BootSegment {
            selector: 0x10,
            base: 1,
            limit: u32::MAX,
            attributes: 0xa09b,
        };
        let gdt = DescriptorTable {
            base: 0x1000,
            limit: 47,
        };
        let mut registers = Registers {
            rax: 1,
            rdx: 2,
            ..Registers::default()
        };
        let msrs = apply(
            &mut registers,
            &[
                VpRegister::Rdx(0),
                VpRegister::Rip(0x100_0200),
                VpRegister::Msr(0x2ff, 0xc06),
                VpRegister::Cs(code),
                VpRegister::Gdtr(gdt),
                VpRegister::Msr(0x250, 6),
            ],
        );
        assert_eq!(msrs, [(0x2ff, 0xc06), (0x250, 6)]);
        let expected = Registers {
            rax: 1,
            rip: 0x100_0200,
            cs: SegmentRegister {
                base: 1,
                limit: u32::MAX,
                selector: 0x10,
                attributes: 0xa09b,
            },
            gdtr: TableRegister {
                base: 0x1000,
                limit: 47,
            },
            ..Registers::default()
        };
        assert_eq!(registers, expected);
    }
}
