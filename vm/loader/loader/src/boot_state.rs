/// The boot processor's registers when it executes its first instruction. What is not here is as after
/// reset (Intel SDM volume 3, table 10-1); application processors wait for a start-up interrupt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootState {
    /// The mode that the control registers below put the processor into.
    pub mode: CpuMode,
    /// First instruction.
    pub rip: u64,
    /// Flags: interrupts are off.
    pub rflags: u64,
    /// Stack pointer: the top of a small stack in RAM.
    pub rsp: u64,
    /// PVH: the start info's address.
    pub rbx: u64,
    /// 64-bit Linux boot protocol: the boot parameters' address.
    pub rsi: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3: the page tables' address, if paging is on.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// The extended feature enable register.
    pub efer: u64,
    /// The global descriptor table, which holds the segments below.
    pub gdt: DescriptorTable,
    /// The interrupt descriptor table: empty.
    pub idt: DescriptorTable,
    /// CS.
    pub code: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// TR.
    pub task: Segment,
}

/// What mode a processor starts in.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum CpuMode {
    /// 64-bit mode, paging on.
    Long,
    /// 32-bit protected mode, paging off.
    Protected,
}

/// The place of a descriptor table.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Its address.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u16,
}

/// A segment register with its hidden part.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Segment {
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

impl Segment {
    /// The type field.
    pub const fn kind(&self) -> u8 {
        (self.attributes & 0xf) as u8
    }

    /// Whether it is a code or data segment (S).
    pub const fn is_code_or_data(&self) -> bool {
        self.attributes & 1 << 4 != 0
    }

    /// The descriptor privilege level.
    pub const fn privilege_level(&self) -> u8 {
        (self.attributes >> 5 & 3) as u8
    }

    /// Whether it is present (P).
    pub const fn is_present(&self) -> bool {
        self.attributes & 1 << 7 != 0
    }

    /// Whether it holds 64-bit code (L).
    pub const fn is_long(&self) -> bool {
        self.attributes & 1 << 13 != 0
    }

    /// Whether its operands are 32 bits wide by default (D/B).
    pub const fn is_32_bit(&self) -> bool {
        self.attributes & 1 << 14 != 0
    }

    /// Whether the limit in the descriptor counts pages (G).
    pub const fn is_page_granular(&self) -> bool {
        self.attributes & 1 << 15 != 0
    }

    /// The segment's first eight descriptor bytes.
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.is_page_granular() {
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
        let code = Segment {
            selector: 0x10,
            base: 0,
            limit: u32::MAX,
            attributes: 0xa09b,
        };
        assert_eq!(code.descriptor(), 0x00af_9b00_0000_ffff);
        assert!(code.is_long() && code.is_page_granular() && !code.is_32_bit());
        assert!(code.is_present() && code.is_code_or_data());
        assert_eq!((code.kind(), code.privilege_level()), (0xb, 0));
        let odd = Segment {
            selector: 0x20,
            base: 0x1234_5678,
            limit: 0x67,
            attributes: 0x008b,
        };
        assert_eq!(odd.descriptor(), 0x1200_8b34_5678_0067);
    }
}
