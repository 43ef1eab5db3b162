//! The registers of VP contexts.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The x64 registers of a context for the platforms NATIVE and SEV, at the start of a page of zeros.
///
/// All other registers have their values after reset. `data_*` goes for DS, ES, SS, FS and GS; GS has a base of its
/// own.
#[derive(
    Debug, Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the registers' architectural names say what they are"
)]
pub struct NativeVpContext {
    pub rax: U64,
    pub rcx: U64,
    pub rdx: U64,
    pub rbx: U64,
    pub rsp: U64,
    pub rbp: U64,
    pub rsi: U64,
    pub rdi: U64,
    pub r8: U64,
    pub r9: U64,
    pub r10: U64,
    pub r11: U64,
    pub r12: U64,
    pub r13: U64,
    pub r14: U64,
    pub r15: U64,
    pub rip: U64,
    pub rflags: U64,
    pub idtr_base: U64,
    pub idtr_limit: U16,
    /// Zero.
    pub reserved: [U16; 2],
    pub gdtr_limit: U16,
    pub gdtr_base: U64,
    pub code_selector: U16,
    pub code_attributes: U16,
    pub code_base: U32,
    pub code_limit: U32,
    pub data_selector: U16,
    pub data_attributes: U16,
    pub data_base: U32,
    pub data_limit: U32,
    pub gs_base: U64,
    pub cr0: U64,
    pub cr3: U64,
    pub cr4: U64,
    pub efer: U64,
}

const _: () = assert!(size_of::<NativeVpContext>() == 232);

/// A register of a context for the platform VSM_ISOLATION: the number and the value by which Hyper-V's interface
/// knows it.
#[derive(
    Debug, Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct VsmRegister {
    /// The virtual trust level; that of all registers of a context is the same.
    pub vtl: u8,
    /// The register.
    pub name: U32,
    /// Zero.
    pub reserved: [u8; 11],
    /// Its value.
    pub value: [u8; 16],
}

const _: () = assert!(size_of::<VsmRegister>() == 32);

/// A descriptor-table register as a register value.
#[derive(
    Debug, Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DescriptorTableRegister {
    /// Zero.
    pub reserved: [U16; 3],
    /// The offset of the table's last byte.
    pub limit: U16,
    /// The table's address.
    pub base: U64,
}

/// A segment register as a register value.
#[derive(
    Debug, Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SegmentRegister {
    /// The base address.
    pub base: U64,
    /// The offset of the last byte.
    pub limit: U32,
    /// The selector.
    pub selector: U16,
    /// Bits 40 to 55 of the descriptor, without the limit's.
    pub attributes: U16,
}

impl VsmRegister {
    /// A register with a value of up to 64 bits.
    pub fn scalar(name: u32, value: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        Self::new(name, bytes)
    }

    /// A descriptor-table register.
    pub fn table(name: u32, base: u64, limit: u16) -> Self {
        let value = DescriptorTableRegister {
            reserved: [U16::ZERO; 3],
            limit: limit.into(),
            base: base.into(),
        };
        Self::new(name, zerocopy::transmute!(value))
    }

    /// A segment register.
    pub fn segment(name: u32, base: u64, limit: u32, selector: u16, attributes: u16) -> Self {
        let value = SegmentRegister {
            base: base.into(),
            limit: limit.into(),
            selector: selector.into(),
            attributes: attributes.into(),
        };
        Self::new(name, zerocopy::transmute!(value))
    }

    fn new(name: u32, value: [u8; 16]) -> Self {
        Self {
            vtl: 0,
            name: name.into(),
            reserved: [0; 11],
            value,
        }
    }

    /// The value of a register of up to 64 bits.
    pub fn as_scalar(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|n| self.value[n]))
    }

    /// The value of a descriptor-table register.
    pub fn as_table(&self) -> DescriptorTableRegister {
        zerocopy::transmute!(self.value)
    }

    /// The value of a segment register.
    pub fn as_segment(&self) -> SegmentRegister {
        zerocopy::transmute!(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_documented_bytes() {
        let code = VsmRegister::segment(0x0006_0001, 0, u32::MAX, 8, 0xa09b);
        assert_eq!(code.as_bytes()[28..], [0x08, 0x00, 0x9b, 0xa0]);
        let gdt = VsmRegister::table(0x0007_0001, 0x70_6000, 0x1f);
        assert_eq!(
            gdt.value,
            [0, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0x60, 0x70, 0, 0, 0, 0, 0]
        );
        assert_eq!(gdt.as_bytes()[..5], [0, 1, 0, 7, 0]);
        assert_eq!(gdt.as_table().base.get(), 0x70_6000);
        assert_eq!(code.as_segment().attributes.get(), 0xa09b);
    }

    #[test]
    fn the_native_context_has_the_documented_offsets() {
        let mut bytes = [0; 232];
        bytes[0x9e..0xa0].copy_from_slice(&47u16.to_le_bytes());
        bytes[0xa0..0xa8].copy_from_slice(&0x1000u64.to_le_bytes());
        bytes[0xaa] = 0x9b;
        bytes[0xc0] = 3;
        bytes[0xe0] = 4;
        let context = NativeVpContext::read_from_bytes(&bytes).unwrap();
        assert_eq!(context.gdtr_limit.get(), 47);
        assert_eq!(context.gdtr_base.get(), 0x1000);
        assert_eq!(context.code_attributes.get(), 0x9b);
        assert_eq!((context.gs_base.get(), context.efer.get()), (3, 4));
    }
}
