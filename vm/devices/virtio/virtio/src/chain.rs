use guest_memory::GuestMemory;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// A piece of guest RAM that a descriptor points to. All of it is RAM, and it is not empty.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Its guest-physical address.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Buffers that follow one another, as one run of bytes. Altogether they are shorter than 4 GiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buffers {
    list: Vec<Buffer>,
    len: u32,
}

impl Buffers {
    /// `false` if the buffers would become longer than they may be.
    #[must_use]
    pub(crate) fn push(&mut self, buffer: Buffer) -> bool {
        let Some(len) = self.len.checked_add(buffer.len) else {
            return false;
        };
        self.len = len;
        self.list.push(buffer);
        true
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.len = 0;
    }

    /// All bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers, as the driver laid them out. What they are cut into means nothing (2.7.4 "Message
    /// Framing"): use it to count pieces, and the other methods to get at fields.
    pub fn pieces(&self) -> &[Buffer] {
        &self.list
    }

    /// The pieces that make up `len` bytes from byte `offset` on, or as many of them as there are.
    pub fn range(&self, offset: u32, len: u32) -> impl Iterator<Item = Buffer> + '_ {
        let (mut skip, mut left) = (offset, len);
        self.list.iter().filter_map(move |buffer| {
            if skip >= buffer.len {
                skip -= buffer.len;
                return None;
            }
            let piece = Buffer {
                gpa: buffer.gpa + u64::from(skip),
                len: (buffer.len - skip).min(left),
            };
            skip = 0;
            left -= piece.len;
            (piece.len != 0).then_some(piece)
        })
    }

    /// Copies bytes from `offset` on to `data`, and gives their number, less than asked for at the end.
    pub fn read(&self, memory: &GuestMemory, offset: u32, data: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.range(offset, u32::try_from(data.len()).unwrap_or(u32::MAX)) {
            let end = done + piece.len as usize;
            let to = &mut data[done..end];
            // Buffers are RAM, which was checked when they were taken from the queue.
            if let Err(error) = memory.map().read_slice(to, GuestAddress(piece.gpa)) {
                tracing::error!(gpa = piece.gpa, %error, "failed to read a buffer");
                break;
            }
            done = end;
        }
        done
    }

    /// Copies `data` to the bytes from `offset` on, and gives their number, less than all at the end.
    pub fn write(&self, memory: &GuestMemory, offset: u32, data: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.range(offset, u32::try_from(data.len()).unwrap_or(u32::MAX)) {
            let end = done + piece.len as usize;
            let from = &data[done..end];
            if let Err(error) = memory.map().write_slice(from, GuestAddress(piece.gpa)) {
                tracing::error!(gpa = piece.gpa, %error, "failed to write a buffer");
                break;
            }
            done = end;
        }
        done
    }
}

/// A descriptor chain: one request of the driver.
///
/// It was checked: its descriptors are well-formed, its buffers are RAM, none that the device writes comes
/// before one that it reads. The contents are the guest's, and may change while they are looked at: read
/// each field once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub(crate) head: u16,
    /// What the device reads.
    pub readable: Buffers,
    /// What the device writes.
    pub writable: Buffers,
}

impl Chain {
    /// The index of the chain's first descriptor, which no other chain in flight has if the driver
    /// behaves. Never use it as a key: drivers misbehave.
    pub fn head(&self) -> u16 {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cut_across_buffers() {
        let mut buffers = Buffers::default();
        assert!(buffers.push(Buffer { gpa: 100, len: 4 }));
        assert!(buffers.push(Buffer { gpa: 200, len: 8 }));
        let range = |offset, len| {
            buffers
                .range(offset, len)
                .map(|b| (b.gpa, b.len))
                .collect::<Vec<_>>()
        };
        assert_eq!(range(0, 12), [(100, 4), (200, 8)]);
        assert_eq!(range(3, 2), [(103, 1), (200, 1)]);
        assert_eq!(range(4, 100), [(200, 8)]);
        assert_eq!(range(5, 0), []);
        assert_eq!(range(12, 1), []);
        assert_eq!(range(u32::MAX, u32::MAX), []);
        assert!(!buffers.push(Buffer {
            gpa: 0,
            len: u32::MAX - 11
        }));
        assert_eq!(buffers.len(), 12);
    }
}
