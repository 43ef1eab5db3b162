//! A queue's rings, the driver's side.

use guest_memory::GuestMemory;
use std::sync::atomic::Ordering;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A queue's rings (2.7), the driver's side.
///
/// Its methods panic if the rings are outside of guest RAM.
#[derive(Debug, Clone)]
pub struct Ring {
    memory: GuestMemory,
    /// Entries in each ring.
    pub size: u16,
    /// The GPA of the descriptor table.
    pub descriptors: u64,
    /// The GPA of the available ring.
    pub available: u64,
    /// The GPA of the used ring.
    pub used: u64,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    /// The length of rings of `size` entries in bytes.
    pub fn footprint(size: u16) -> u64 {
        let size = u64::from(size);
        (16 * size + (6 + 2 * size)).next_multiple_of(4) + 6 + 8 * size
    }

    /// Creates zeroed rings of `size` entries at `gpa`, a multiple of 16.
    pub fn new(memory: &GuestMemory, gpa: u64, size: u16) -> Self {
        let available = gpa + 16 * u64::from(size);
        let ring = Self {
            memory: memory.clone(),
            size,
            descriptors: gpa,
            available,
            used: (available + 6 + 2 * u64::from(size)).next_multiple_of(4),
            next_descriptor: 0,
            next_available: 0,
            next_used: 0,
        };
        let zeros = vec![0; Self::footprint(size) as usize];
        must(memory.map().write_slice(&zeros, GuestAddress(gpa)));
        ring
    }

    fn load(&self, gpa: u64) -> u16 {
        must(self.memory.map().load(GuestAddress(gpa), Ordering::SeqCst))
    }

    fn store(&self, gpa: u64, value: u16) {
        must(
            self.memory
                .map()
                .store(value, GuestAddress(gpa), Ordering::SeqCst),
        );
    }

    /// Writes entry `index` of the descriptor table at `table`.
    pub fn write_descriptor(
        &self,
        table: u64,
        index: u16,
        (gpa, len, flags, next): (u64, u32, u16, u16),
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = GuestAddress(table + 16 * u64::from(index));
        must(self.memory.map().write_slice(&bytes, at));
    }

    fn take_descriptor(&mut self) -> u16 {
        let index = self.next_descriptor;
        self.next_descriptor = (index + 1) % self.size;
        index
    }

    /// Adds a chain of `(gpa, len, writable)` buffers. Returns its head. The device does not see it before
    /// [`publish`](Self::publish). Descriptors are reused in turn: keep fewer in flight than there are.
    pub fn add(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        let indices: Vec<_> = buffers.iter().map(|_| self.take_descriptor()).collect();
        for (position, (gpa, len, writable)) in buffers.iter().enumerate() {
            let next = indices.get(position + 1);
            let flags = if *writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            let descriptor = (*gpa, *len, flags, next.copied().unwrap_or(0));
            self.write_descriptor(self.descriptors, indices[position], descriptor);
        }
        self.add_head(indices[0]);
        indices[0]
    }

    /// Like [`add`](Self::add), with the descriptors in a table at `table`.
    pub fn add_indirect(&mut self, table: u64, buffers: &[(u64, u32, bool)]) -> u16 {
        for (index, (gpa, len, writable)) in buffers.iter().enumerate() {
            let last = index + 1 == buffers.len();
            let flags = if *writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.write_descriptor(table, index as u16, (*gpa, *len, flags, index as u16 + 1));
        }
        let head = self.take_descriptor();
        let descriptor = (table, 16 * buffers.len() as u32, INDIRECT, 0);
        self.write_descriptor(self.descriptors, head, descriptor);
        self.add_head(head);
        head
    }

    /// Adds the chain that starts with descriptor `head` to the available ring.
    pub fn add_head(&mut self, head: u16) {
        let slot = self.next_available % self.size;
        self.store(self.available + 4 + 2 * u64::from(slot), head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Makes all added chains visible to the device.
    pub fn publish(&self) {
        self.set_available_index(self.next_available);
    }

    /// Sets the index of the available ring.
    pub fn set_available_index(&self, index: u16) {
        self.store(self.available + 2, index);
    }

    /// Takes the next chain that the device has used. Returns its head and the number of bytes written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.load(self.used + 2) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let mut bytes = [0; 8];
        let at = GuestAddress(self.used + 4 + 8 * slot);
        must(self.memory.map().read_slice(&mut bytes, at));
        let [a, b, _, _, rest @ ..] = bytes;
        Some((u16::from_le_bytes([a, b]), u32::from_le_bytes(rest)))
    }

    /// With event indices: asks for an interrupt when the device has used the chain at `index`.
    pub fn set_used_event(&self, index: u16) {
        self.store(self.available + 4 + 2 * u64::from(self.size), index);
    }

    /// Sets the available ring's flags: 1 suppresses interrupts.
    pub fn set_flags(&self, flags: u16) {
        self.store(self.available, flags);
    }
}

pub(super) fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
