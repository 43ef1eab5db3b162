//! 16-bit machine code, instruction by instruction.

use crate::machine::DONE;

/// Code under construction.
#[derive(Default, Clone)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn word(self, opcode: &[u8], value: u16) -> Self {
        self.then(opcode).then(&value.to_le_bytes())
    }

    fn dword(self, opcode: &[u8], value: u32) -> Self {
        self.then(opcode).then(&value.to_le_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn raw(self, bytes: &[u8]) -> Self {
        self.then(bytes)
    }

    pub(crate) fn mov_al(self, value: u8) -> Self {
        self.then(&[0xb0, value])
    }

    pub(crate) fn mov_cx(self, value: u16) -> Self {
        self.word(&[0xb9], value)
    }

    pub(crate) fn mov_dx(self, value: u16) -> Self {
        self.word(&[0xba], value)
    }

    pub(crate) fn mov_si(self, value: u16) -> Self {
        self.word(&[0xbe], value)
    }

    pub(crate) fn mov_di(self, value: u16) -> Self {
        self.word(&[0xbf], value)
    }

    pub(crate) fn mov_eax(self, value: u32) -> Self {
        self.dword(&[0x66, 0xb8], value)
    }

    pub(crate) fn mov_ecx(self, value: u32) -> Self {
        self.dword(&[0x66, 0xb9], value)
    }

    pub(crate) fn mov_edx(self, value: u32) -> Self {
        self.dword(&[0x66, 0xba], value)
    }

    pub(crate) fn out_dx_al(self) -> Self {
        self.then(&[0xee])
    }

    pub(crate) fn out_dx_ax(self) -> Self {
        self.then(&[0xef])
    }

    pub(crate) fn out_dx_eax(self) -> Self {
        self.then(&[0x66, 0xef])
    }

    pub(crate) fn in_al_dx(self) -> Self {
        self.then(&[0xec])
    }

    pub(crate) fn in_ax_dx(self) -> Self {
        self.then(&[0xed])
    }

    pub(crate) fn rep_outsb(self) -> Self {
        self.then(&[0xf3, 0x6e])
    }

    pub(crate) fn rep_insw(self) -> Self {
        self.then(&[0xf3, 0x6d])
    }

    /// `mov [address], eax`.
    pub(crate) fn store_eax(self, address: u16) -> Self {
        self.word(&[0x66, 0xa3], address)
    }

    /// `mov [es:address], eax`.
    pub(crate) fn store_es_eax(self, address: u16) -> Self {
        self.word(&[0x26, 0x66, 0xa3], address)
    }

    /// `mov [es:address], al`.
    pub(crate) fn store_es_al(self, address: u16) -> Self {
        self.word(&[0x26, 0xa2], address)
    }

    /// `mov [es:address], ax`.
    pub(crate) fn store_es_ax(self, address: u16) -> Self {
        self.word(&[0x26, 0xa3], address)
    }

    /// `mov eax, [es:address]`.
    pub(crate) fn load_es_eax(self, address: u16) -> Self {
        self.word(&[0x26, 0x66, 0xa1], address)
    }

    /// `mov dword [es:address], value`.
    pub(crate) fn store_es(self, address: u16, value: u32) -> Self {
        self.word(&[0x26, 0x66, 0xc7, 0x06], address)
            .then(&value.to_le_bytes())
    }

    /// `inc dword [address]`.
    pub(crate) fn inc_dword(self, address: u16) -> Self {
        self.word(&[0x66, 0xff, 0x06], address)
    }

    pub(crate) fn inc_ebx(self) -> Self {
        self.then(&[0x66, 0x43])
    }

    pub(crate) fn rdmsr(self, index: u32) -> Self {
        self.mov_ecx(index).then(&[0x0f, 0x32])
    }

    pub(crate) fn wrmsr(self, index: u32, value: u64) -> Self {
        self.mov_ecx(index)
            .mov_eax(value as u32)
            .mov_edx((value >> 32) as u32)
            .then(&[0x0f, 0x30])
    }

    pub(crate) fn rdtsc(self) -> Self {
        self.then(&[0x0f, 0x31])
    }

    /// Interrupts on.
    pub(crate) fn sti(self) -> Self {
        self.then(&[0xfb])
    }

    pub(crate) fn hlt(self) -> Self {
        self.then(&[0xf4])
    }

    pub(crate) fn iret(self) -> Self {
        self.then(&[0xcf])
    }

    /// Raises #UD.
    pub(crate) fn ud2(self) -> Self {
        self.then(&[0x0f, 0x0b])
    }

    /// `out DONE, al`: the test's bus stops the VP.
    pub(crate) fn done(self) -> Self {
        self.then(&[0xe6, DONE as u8])
    }

    /// `jmp` to the byte at `offset` from the start of this code.
    pub(crate) fn jmp(self, offset: usize) -> Self {
        let next = self.0.len() as i16 + 3;
        self.word(&[0xe9], (offset as i16).wrapping_sub(next) as u16)
    }
}
