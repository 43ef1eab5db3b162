pub(crate) const ENTRY_LENGTH: u64 = 16;

/// The layout of the MSI-X structures of a function.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsixLayout {
    /// The memory BAR they are in.
    pub bar: usize,
    /// The number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Offset of the table in the BAR, a multiple of 8. The table has 16 bytes for each vector.
    pub table_offset: u32,
    /// Offset of the pending bits in the BAR, a multiple of 8. They have 8 bytes for each 64 vectors.
    pub pending_offset: u32,
}

impl MsixLayout {
    pub(crate) const CAPABILITY_ID: u8 = 0x11;

    /// Bits of the first register of the capability.
    pub(crate) const CONTROL_ENABLE: u32 = 1 << 31;
    pub(crate) const CONTROL_MASK: u32 = 1 << 30;

    /// The length of the table in bytes.
    pub fn table_length(&self) -> u64 {
        u64::from(self.vectors) * ENTRY_LENGTH
    }

    /// The length of the pending bits in bytes.
    pub fn pending_length(&self) -> u64 {
        u64::from(self.vectors.div_ceil(64)) * 8
    }

    /// Whether the layout is valid for a BAR of `size` bytes.
    pub(crate) fn fits(&self, size: u64) -> bool {
        let (table, pending) = (u64::from(self.table_offset), u64::from(self.pending_offset));
        let (table_end, pending_end) =
            (table + self.table_length(), pending + self.pending_length());
        (1..=2048).contains(&self.vectors)
            && table.is_multiple_of(8)
            && pending.is_multiple_of(8)
            && table_end.max(pending_end) <= size
            && (table_end <= pending || pending_end <= table)
    }

    /// The body of the capability, after its header, and its writable bits.
    pub(crate) fn capability(&self) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.vectors - 1).to_le_bytes());
        // The low bits of the offsets, which are zero, are the number of the BAR.
        let bar = self.bar as u32;
        body[2..6].copy_from_slice(&(self.table_offset | bar).to_le_bytes());
        body[6..].copy_from_slice(&(self.pending_offset | bar).to_le_bytes());
        let writable = (Self::CONTROL_ENABLE | Self::CONTROL_MASK) >> 16;
        (body, (writable as u16).to_le_bytes())
    }
}
