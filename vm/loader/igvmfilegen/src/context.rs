//! The registers that were imported, as VP contexts.

use igvm_format::NativeVpContext;
use igvm_format::VsmRegister;
use loader::BootSegment;
use loader::DescriptorTable;
use loader::VpRegister;
use zerocopy::FromZeros;

/// Why registers cannot be put into a VP context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The format has no place for a register.
    #[error("the VP context of the platform {platform} has no place for {register:?}")]
    NoPlace {
        /// The platform.
        platform: &'static str,
        /// The register and its value.
        register: VpRegister,
    },
    /// The data segments differ.
    #[error(
        "the VP context of the platform NATIVE has one value for all data segments, but {register:?} differs"
    )]
    DataSegments {
        /// The register and its value.
        register: VpRegister,
    },
    /// A register of another VP than the first.
    #[error("the registers of VP {vp} are set; only those of VP 0 can be")]
    Vp {
        /// The VP.
        vp: u32,
    },
}

/// The context of NATIVE.
pub(crate) fn native(registers: &[VpRegister]) -> Result<NativeVpContext, ContextError> {
    let mut c = NativeVpContext::new_zeroed();
    let mut data: Option<BootSegment> = None;
    for register in registers {
        match *register {
            VpRegister::Rax(value) => c.rax = value.into(),
            VpRegister::Rbx(value) => c.rbx = value.into(),
            VpRegister::Rcx(value) => c.rcx = value.into(),
            VpRegister::Rdx(value) => c.rdx = value.into(),
            VpRegister::Rsi(value) => c.rsi = value.into(),
            VpRegister::Rdi(value) => c.rdi = value.into(),
            VpRegister::Rsp(value) => c.rsp = value.into(),
            VpRegister::Rbp(value) => c.rbp = value.into(),
            VpRegister::R8(value) => c.r8 = value.into(),
            VpRegister::R9(value) => c.r9 = value.into(),
            VpRegister::R10(value) => c.r10 = value.into(),
            VpRegister::R11(value) => c.r11 = value.into(),
            VpRegister::R12(value) => c.r12 = value.into(),
            VpRegister::R13(value) => c.r13 = value.into(),
            VpRegister::R14(value) => c.r14 = value.into(),
            VpRegister::R15(value) => c.r15 = value.into(),
            VpRegister::Rip(value) => c.rip = value.into(),
            VpRegister::Rflags(value) => c.rflags = value.into(),
            VpRegister::Cr0(value) => c.cr0 = value.into(),
            VpRegister::Cr3(value) => c.cr3 = value.into(),
            VpRegister::Cr4(value) => c.cr4 = value.into(),
            VpRegister::Efer(value) => c.efer = value.into(),
            VpRegister::Gdtr(table) => {
                c.gdtr_base = table.base.into();
                c.gdtr_limit = table.limit.into();
            }
            VpRegister::Idtr(table) => {
                c.idtr_base = table.base.into();
                c.idtr_limit = table.limit.into();
            }
            VpRegister::Cs(code) => {
                c.code_selector = code.selector.into();
                c.code_attributes = code.attributes.into();
                c.code_base = base32(code, *register)?.into();
                c.code_limit = code.limit.into();
            }
            VpRegister::Ds(segment)
            | VpRegister::Es(segment)
            | VpRegister::Fs(segment)
            | VpRegister::Ss(segment)
            | VpRegister::Gs(segment) => {
                let mut common = segment;
                if let VpRegister::Gs(_) = register {
                    c.gs_base = segment.base.into();
                    common.base = data.map_or(0, |data| data.base);
                }
                if data.is_some_and(|data| data != common) {
                    return Err(ContextError::DataSegments {
                        register: *register,
                    });
                }
                c.data_selector = common.selector.into();
                c.data_attributes = common.attributes.into();
                c.data_base = base32(common, *register)?.into();
                c.data_limit = common.limit.into();
                data = Some(common);
            }
            VpRegister::Cr2(_)
            | VpRegister::Cr8(_)
            | VpRegister::Tr(_)
            | VpRegister::Ldtr(_)
            | VpRegister::Msr(..) => {
                return Err(ContextError::NoPlace {
                    platform: "NATIVE",
                    register: *register,
                });
            }
        }
    }
    Ok(c)
}

/// The base of a segment, which has 32 bits in a native context.
fn base32(segment: BootSegment, register: VpRegister) -> Result<u32, ContextError> {
    u32::try_from(segment.base).map_err(|_| ContextError::NoPlace {
        platform: "NATIVE",
        register,
    })
}

/// The register list of VSM_ISOLATION, with those registers only that every loader knows.
pub(crate) fn vsm(registers: &[VpRegister]) -> Result<Vec<VsmRegister>, ContextError> {
    let scalar = |name, value| Some(VsmRegister::scalar(name, value));
    let segment = |name, s: BootSegment| {
        let (base, limit) = (s.base, s.limit);
        Some(VsmRegister::segment(
            name,
            base,
            limit,
            s.selector,
            s.attributes,
        ))
    };
    let table = |name, t: DescriptorTable| Some(VsmRegister::table(name, t.base, t.limit));
    let list = registers.iter().map(|register| {
        let packed = match *register {
            VpRegister::Rsp(value) => scalar(0x2_0004, value),
            VpRegister::Rbp(value) => scalar(0x2_0005, value),
            VpRegister::Rsi(value) => scalar(0x2_0006, value),
            VpRegister::R8(value) => scalar(0x2_0008, value),
            VpRegister::R9(value) => scalar(0x2_0009, value),
            VpRegister::R10(value) => scalar(0x2_000a, value),
            VpRegister::R11(value) => scalar(0x2_000b, value),
            VpRegister::R12(value) => scalar(0x2_000c, value),
            VpRegister::Rip(value) => scalar(0x2_0010, value),
            VpRegister::Rflags(value) => scalar(0x2_0011, value),
            VpRegister::Cr0(value) => scalar(0x4_0000, value),
            VpRegister::Cr3(value) => scalar(0x4_0002, value),
            VpRegister::Cr4(value) => scalar(0x4_0003, value),
            VpRegister::Efer(value) => scalar(0x8_0001, value),
            VpRegister::Es(value) => segment(0x6_0000, value),
            VpRegister::Cs(value) => segment(0x6_0001, value),
            VpRegister::Ss(value) => segment(0x6_0002, value),
            VpRegister::Ds(value) => segment(0x6_0003, value),
            VpRegister::Fs(value) => segment(0x6_0004, value),
            VpRegister::Gs(value) => segment(0x6_0005, value),
            VpRegister::Tr(value) => segment(0x6_0007, value),
            VpRegister::Idtr(value) => table(0x7_0000, value),
            VpRegister::Gdtr(value) => table(0x7_0001, value),
            VpRegister::Msr(0x277, value) => scalar(0x8_0004, value),
            VpRegister::Msr(0x2ff, value) => scalar(0x8_000e, value),
            VpRegister::Msr(index @ 0x200..0x20a, value) => {
                let base = if index % 2 == 0 { 0x8_0010 } else { 0x8_0040 };
                scalar(base + (index - 0x200) / 2, value)
            }
            VpRegister::Msr(0x250, value) => scalar(0x8_0070, value),
            VpRegister::Msr(0x258, value) => scalar(0x8_0071, value),
            VpRegister::Msr(index @ 0x26c..0x270, value) => {
                scalar(0x8_0077 + (index - 0x26c), value)
            }
            _ => None,
        };
        packed.ok_or(ContextError::NoPlace {
            platform: "VSM_ISOLATION",
            register: *register,
        })
    });
    list.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: BootSegment = BootSegment {
        selector: 0x10,
        base: 0,
        limit: u32::MAX,
        attributes: 0xc093,
    };

    #[test]
    fn a_native_context_has_one_value_for_data_segments() {
        let gs = BootSegment {
            base: 0x1000,
            ..DATA
        };
        let context = native(&[VpRegister::Ds(DATA), VpRegister::Gs(gs)]).unwrap();
        assert_eq!(context.data_selector.get(), 0x10);
        assert_eq!(
            (context.data_base.get(), context.gs_base.get()),
            (0, 0x1000)
        );
        let other = VpRegister::Es(BootSegment {
            selector: 0x18,
            ..DATA
        });
        assert_eq!(
            native(&[VpRegister::Ds(DATA), other]),
            Err(ContextError::DataSegments { register: other })
        );
    }

    #[test]
    fn a_register_without_a_place_is_named() {
        let register = VpRegister::Msr(0x277, 6);
        let error = native(&[register]).unwrap_err().to_string();
        assert!(error.contains("Msr(631, 6)"), "{error}");
        let register = VpRegister::Rax(1);
        assert!(vsm(&[register]).is_err());
    }

    #[test]
    fn each_register_of_a_list_is_read_back() {
        let registers = [
            VpRegister::Rip(0x10_0000),
            VpRegister::R12(7),
            VpRegister::Cs(DATA),
            VpRegister::Tr(DATA),
            VpRegister::Gdtr(DescriptorTable {
                base: 0x1000,
                limit: 7,
            }),
            VpRegister::Msr(0x277, 1),
            VpRegister::Msr(0x2ff, 2),
            VpRegister::Msr(0x200, 3),
            VpRegister::Msr(0x209, 4),
            VpRegister::Msr(0x250, 5),
            VpRegister::Msr(0x258, 5),
            VpRegister::Msr(0x26f, 5),
        ];
        let list = vsm(&registers).unwrap();
        let read: Vec<_> = list
            .iter()
            .map(|register| loader::igvm::register_from_vsm(register).unwrap())
            .collect();
        assert_eq!(read, registers);
    }
}
