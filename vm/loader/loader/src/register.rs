//! The registers that payloads set.

/// A VP's register and its value.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the registers' architectural names say what they are"
)]
pub enum VpRegister {
    Rax(u64),
    Rbx(u64),
    Rcx(u64),
    Rdx(u64),
    Rsi(u64),
    Rdi(u64),
    Rsp(u64),
    Rbp(u64),
    R8(u64),
    R9(u64),
    R10(u64),
    R11(u64),
    R12(u64),
    R13(u64),
    R14(u64),
    R15(u64),
    Rip(u64),
    Rflags(u64),
    Cr0(u64),
    Cr2(u64),
    Cr3(u64),
    Cr4(u64),
    Cr8(u64),
    Efer(u64),
    Gdtr(DescriptorTable),
    Idtr(DescriptorTable),
    Cs(BootSegment),
    Ds(BootSegment),
    Es(BootSegment),
    Fs(BootSegment),
    Gs(BootSegment),
    Ss(BootSegment),
    Tr(BootSegment),
    Ldtr(BootSegment),
    /// A model-specific register, such as one of the MTRRs: its index and its value.
    Msr(u32, u64),
}

/// The location of a descriptor table.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Its address.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u16,
}

/// A segment register with its hidden part.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BootSegment {
    /// The selector.
    pub selector: u16,
    /// The base address.
    pub base: u64,
    /// The offset of the last byte, in bytes whatever the granularity.
    pub limit: u32,
    /// Bits 40 to 55 of the descriptor without the limit's: type in bits 0 to 3, S in 4, DPL in 5 and 6, P
    /// in 7, AVL in 12, L in 13, D/B in 14 and G in 15.
    pub attributes: u16,
}

impl BootSegment {
    /// The G attribute: the limit in the descriptor counts pages.
    const PAGE_GRANULAR: u16 = 1 << 15;

    /// The first eight bytes of the segment's descriptor.
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.attributes & Self::PAGE_GRANULAR != 0 {
            self.limit >> 12
        } else {
            self.limit
        } as u64;
        let base = self.base;
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | (self.attributes as u64 & 0xf0ff) << 40
            | (limit >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_in_the_processors_format() {
        let code = BootSegment {
            selector: 0x10,
            base: 0,
            limit: u32::MAX,
            attributes: 0xa09b,
        };
        assert_eq!(code.descriptor(), 0x00af_9b00_0000_ffff);
        let task = BootSegment {
            selector: 0x20,
            base: 0x1234_5678,
            limit: 0x67,
            attributes: 0x008b,
        };
        assert_eq!(task.descriptor(), 0x1200_8b34_5678_0067);
    }
}
