//! Descriptor chains and the guest memory that they describe.

use guest_memory::GuestMemory;
use log_limit::LogLimit;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

static FAILURES: LogLimit = LogLimit::new();

/// The guest memory that a descriptor points to. All of it is RAM, and it is not empty.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Its guest-physical address.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// The buffers of one direction of a chain, as one sequence of bytes. Together they are shorter than 4 GiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainBuffers {
    list: Vec<Buffer>,
    len: u32,
}

impl ChainBuffers {
    /// Appends a buffer. Returns `false` if the total length would exceed 4 GiB.
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

    /// The total length in bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers as the driver laid them out. How the driver splits a message into buffers has no meaning
    /// (2.7.4 "Message Framing"): use the other methods to access fields.
    pub fn pieces(&self) -> &[Buffer] {
        &self.list
    }

    /// The pieces of memory that hold `len` bytes starting at byte `offset`, or fewer at the end.
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

    /// Copies bytes starting at `offset` to `data`. Returns the number of bytes copied, fewer at the end.
    pub fn read(&self, memory: &GuestMemory, offset: u32, data: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.range(offset, u32::try_from(data.len()).unwrap_or(u32::MAX)) {
            let end = done + piece.len as usize;
            let to = &mut data[done..end];
            // Never fails: buffers were checked to be RAM when the chain was taken from the queue.
            if let Err(error) = memory.map().read_slice(to, GuestAddress(piece.gpa)) {
                if let Some(suppressed) = FAILURES.allow() {
                    tracing::error!(gpa = piece.gpa, %error, suppressed, "failed to read a descriptor's buffer");
                }
                break;
            }
            done = end;
        }
        done
    }

    /// Copies `data` to the bytes starting at `offset`. Returns the number of bytes copied, fewer at the end.
    pub fn write(&self, memory: &GuestMemory, offset: u32, data: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.range(offset, u32::try_from(data.len()).unwrap_or(u32::MAX)) {
            let end = done + piece.len as usize;
            let from = &data[done..end];
            if let Err(error) = memory.map().write_slice(from, GuestAddress(piece.gpa)) {
                if let Some(suppressed) = FAILURES.allow() {
                    tracing::error!(gpa = piece.gpa, %error, suppressed, "failed to write a descriptor's buffer");
                }
                break;
            }
            done = end;
        }
        done
    }
}

/// A descriptor chain (2.7): one request of the driver.
///
/// It has been validated: its descriptors are well-formed, its buffers are RAM, and no device-writable buffer
/// comes before a device-readable one. The guest may change the contents at any time: read each field once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DescriptorChain {
    pub(crate) head: u16,
    /// Device-readable buffers.
    pub readable: ChainBuffers,
    /// Device-writable buffers.
    pub writable: ChainBuffers,
}

impl DescriptorChain {
    /// The index of the chain's first descriptor. Never use it as a key: a misbehaving driver may have several
    /// chains with the same head in flight.
    pub fn head(&self) -> u16 {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_span_buffers() {
        let mut buffers = ChainBuffers::default();
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
