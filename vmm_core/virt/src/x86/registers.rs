use std::fmt;

/// A segment register with its hidden part.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SegmentRegister {
    /// Base address.
    #[n(0)]
    pub base: u64,
    /// Limit in bytes (expanded, not in pages).
    #[n(1)]
    pub limit: u32,
    /// The selector.
    #[n(2)]
    pub selector: u16,
    /// Attributes as in the second dword of a descriptor, from bit 8: type, S, DPL, P, AVL, L, D/B, G;
    /// bit 16 is set when the segment is unusable.
    #[n(3)]
    pub attributes: u32,
}

/// GDTR or IDTR.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct TableRegister {
    /// Base address.
    #[n(0)]
    pub base: u64,
    /// Limit in bytes.
    #[n(1)]
    pub limit: u16,
}

/// General, control and segment registers.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
#[allow(missing_docs, reason = "the registers' architectural names say it all")]
pub struct Registers {
    #[n(0)]
    pub rax: u64,
    #[n(1)]
    pub rbx: u64,
    #[n(2)]
    pub rcx: u64,
    #[n(3)]
    pub rdx: u64,
    #[n(4)]
    pub rsi: u64,
    #[n(5)]
    pub rdi: u64,
    #[n(6)]
    pub rsp: u64,
    #[n(7)]
    pub rbp: u64,
    #[n(8)]
    pub r8: u64,
    #[n(9)]
    pub r9: u64,
    #[n(10)]
    pub r10: u64,
    #[n(11)]
    pub r11: u64,
    #[n(12)]
    pub r12: u64,
    #[n(13)]
    pub r13: u64,
    #[n(14)]
    pub r14: u64,
    #[n(15)]
    pub r15: u64,
    #[n(16)]
    pub rip: u64,
    #[n(17)]
    pub rflags: u64,
    #[n(18)]
    pub cs: SegmentRegister,
    #[n(19)]
    pub ds: SegmentRegister,
    #[n(20)]
    pub es: SegmentRegister,
    #[n(21)]
    pub fs: SegmentRegister,
    #[n(22)]
    pub gs: SegmentRegister,
    #[n(23)]
    pub ss: SegmentRegister,
    #[n(24)]
    pub tr: SegmentRegister,
    #[n(25)]
    pub ldtr: SegmentRegister,
    #[n(26)]
    pub gdtr: TableRegister,
    #[n(27)]
    pub idtr: TableRegister,
    #[n(28)]
    pub cr0: u64,
    #[n(29)]
    pub cr2: u64,
    #[n(30)]
    pub cr3: u64,
    #[n(31)]
    pub cr4: u64,
    #[n(32)]
    pub cr8: u64,
    #[n(33)]
    pub efer: u64,
    #[n(34)]
    pub apic_base: u64,
}

impl Registers {
    /// Whether the processor is at its first instruction after a reset (AMD64 manual volume 2, 14.1.3).
    pub fn at_reset_vector(&self) -> bool {
        self.rip == 0xfff0 && self.cs.base == 0xffff_0000 && self.cr0 & 1 == 0 && self.efer == 0
    }
}

/// Fields with their names.
macro_rules! named {
    ($from:expr; $($field:ident)*) => {
        [$((stringify!($field), $from.$field)),*]
    };
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rip={:016x} rflags={:08x}", self.rip, self.rflags)?;
        let general = named!(self; rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15);
        for four in general.chunks(4) {
            let line: Vec<_> = four
                .iter()
                .map(|(n, v)| format!("{n:<3}={v:016x}"))
                .collect();
            writeln!(f, "{}", line.join(" "))?;
        }
        for (name, s) in named!(self; cs ds es fs gs ss tr ldtr) {
            writeln!(
                f,
                "{name:4} {:04x} base={:016x} limit={:08x} attr={:05x}",
                s.selector, s.base, s.limit, s.attributes
            )?;
        }
        writeln!(
            f,
            "gdtr base={:016x} limit={:04x}  idtr base={:016x} limit={:04x}",
            self.gdtr.base, self.gdtr.limit, self.idtr.base, self.idtr.limit
        )?;
        write!(
            f,
            "cr0={:08x} cr2={:016x} cr3={:016x} cr4={:08x} cr8={:x} efer={:x}",
            self.cr0, self.cr2, self.cr3, self.cr4, self.cr8, self.efer
        )
    }
}
