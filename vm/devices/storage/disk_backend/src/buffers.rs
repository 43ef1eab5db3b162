//! The memory that operations read and write.
#![allow(
    unsafe_code,
    reason = "the guest can change the memory, so it is accessed by address and never borrowed"
)]

use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;
use vm_memory::GuestMemoryMmap;
use vm_memory::VolatileSlice;

/// Aligned as direct I/O asks for.
#[repr(align(4096))]
struct Zeroes([u8; 64 << 10]);

/// The source of zeroes.
static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// Why memory cannot be used for I/O.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuffersError {
    /// The range is not RAM.
    #[error("{len} bytes at guest address {gpa:#x} are not within RAM")]
    NotRam {
        /// The first guest-physical address.
        gpa: u64,
        /// The number of bytes.
        len: u64,
    },
}

/// What keeps the memory mapped.
#[derive(Debug, Clone)]
enum Owner {
    Guest(#[expect(dead_code, reason = "held for its mappings")] Arc<GuestMemoryMmap>),
    /// [`ZEROES`]: read-only.
    Static,
}

/// A list of memory pieces that an operation reads or writes. They stay mapped as long as it exists.
///
/// The guest may change the bytes at any time, so they are only copied, or passed to the kernel by address.
#[derive(Debug)]
pub struct Buffers {
    /// Each is within one mapping of `owner`.
    pieces: Vec<libc::iovec>,
    /// The index of the first piece that is left.
    first: usize,
    len: u64,
    owner: Owner,
    /// What [`Self::freeze`] copied, to which pieces point.
    frozen: Vec<Arc<[u8]>>,
}

// SAFETY: the addresses are valid in the whole process as long as `owner` lives, and all access through them is by
// volatile copies or by the kernel, which tolerate concurrent access by other threads and the guest.
unsafe impl Send for Buffers {}
// SAFETY: as above.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// The given ranges of guest RAM (GPA, length in bytes), in that order.
    pub fn guest(
        memory: &Arc<GuestMemoryMmap>,
        ranges: impl IntoIterator<Item = (GuestAddress, u64)>,
    ) -> Result<Self, BuffersError> {
        let ranges = ranges.into_iter();
        let mut pieces = Vec::with_capacity(ranges.size_hint().0);
        let mut total = 0;
        for (gpa, len) in ranges {
            let not_ram = || BuffersError::NotRam { gpa: gpa.0, len };
            let count = usize::try_from(len).map_err(|_| not_ram())?;
            // A range may span adjacent regions.
            for slice in memory.get_slices(gpa, count) {
                let slice = slice.map_err(|_| not_ram())?;
                pieces.push(libc::iovec {
                    iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                    iov_len: slice.len(),
                });
                total += slice.len() as u64;
            }
        }
        Ok(Self {
            pieces,
            first: 0,
            len: total,
            owner: Owner::Guest(memory.clone()),
            frozen: Vec::new(),
        })
    }

    /// Up to `len` zeroes to write, at least one if `len` is not 0.
    pub fn zeroes(len: u64) -> Self {
        const PIECES: usize = 16;
        let mut pieces = Vec::with_capacity(PIECES);
        let mut left = len.min((PIECES * ZEROES.0.len()) as u64);
        let total = left;
        while left != 0 {
            let count = ZEROES.0.len().min(left as usize);
            pieces.push(libc::iovec {
                iov_base: ZEROES.0.as_ptr().cast_mut().cast(),
                iov_len: count,
            });
            left -= count as u64;
        }
        Self {
            pieces,
            first: 0,
            len: total,
            owner: Owner::Static,
            frozen: Vec::new(),
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces by host address, for system calls. They are valid as long as `self` lives.
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.pieces[self.first..]
    }

    /// Removes the first `count` bytes, or all.
    pub fn advance(&mut self, count: u64) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left != 0 {
            let piece = &mut self.pieces[self.first];
            if (piece.iov_len as u64) <= left {
                left -= piece.iov_len as u64;
                self.first += 1;
            } else {
                piece.iov_base = piece.iov_base.wrapping_byte_add(left as usize);
                piece.iov_len -= left as usize;
                left = 0;
            }
        }
    }

    /// Removes and returns the first `len` bytes, or all.
    #[must_use]
    pub fn take_front(&mut self, len: u64) -> Self {
        let front = self.part(0, len);
        self.advance(len);
        front
    }

    /// Replaces the `N` bytes starting at `start` by a copy, which the guest cannot change, and returns them. Nothing can
    /// be read into the memory afterwards. Bytes beyond the end are taken as zeroes.
    pub fn freeze<const N: usize>(&mut self, start: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.copy_to(start, &mut bytes);
        let copy: Arc<[u8]> = Arc::from(&bytes[..]);
        let end = start.saturating_add(N as u64);
        let mut pieces = self.part(0, start).pieces;
        pieces.push(libc::iovec {
            iov_base: copy.as_ptr().cast_mut().cast(),
            iov_len: N.min(self.len.saturating_sub(start) as usize),
        });
        pieces.append(&mut self.part(end, u64::MAX).pieces);
        self.pieces = pieces;
        self.first = 0;
        self.frozen.push(copy);
        bytes
    }

    /// The `len` bytes starting at `start`, or fewer at the end.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Self {
        let mut pieces = Vec::new();
        let mut total = 0;
        self.walk(start, len, |base, count| {
            pieces.push(libc::iovec {
                iov_base: base.cast(),
                iov_len: count,
            });
            total += count as u64;
        });
        Self {
            pieces,
            first: 0,
            len: total,
            owner: self.owner.clone(),
            frozen: self.frozen.clone(),
        }
    }

    /// Calls `visit` for each piece of the `len` bytes starting at `start`.
    fn walk(&self, start: u64, len: u64, mut visit: impl FnMut(*mut u8, usize)) {
        let mut skip = start;
        let mut left = len;
        for piece in self.iovecs() {
            let piece_len = piece.iov_len as u64;
            if left == 0 {
                break;
            }
            if skip >= piece_len {
                skip -= piece_len;
                continue;
            }
            let count = (piece_len - skip).min(left);
            let base = piece.iov_base.cast::<u8>().wrapping_add(skip as usize);
            visit(base, count as usize);
            skip = 0;
            left -= count;
        }
    }

    /// Copies the bytes starting at `start` to `to`, or fewer at the end.
    pub fn copy_to(&self, start: u64, to: &mut [u8]) {
        let mut done = 0;
        self.walk(start, to.len() as u64, |base, count| {
            // SAFETY: the piece is in a mapping that `self.owner` keeps, or in `self.frozen`, and is only read; the slice
            // does not outlive it.
            let slice = unsafe { VolatileSlice::new(base, count) };
            done += slice.copy_to(&mut to[done..done + count]);
        });
    }

    /// Copies `from` to the bytes starting at `start`, or less at the end.
    pub fn copy_from(&self, start: u64, from: &[u8]) {
        if matches!(self.owner, Owner::Static) || !self.frozen.is_empty() {
            return;
        }
        let mut done = 0;
        self.walk(start, from.len() as u64, |base, count| {
            // SAFETY: the piece is in a writable mapping that `self.owner` keeps (read-only memory is excluded
            // above); the slice does not outlive it.
            let slice = unsafe { VolatileSlice::new(base, count) };
            slice.copy_from(&from[done..done + count]);
            done += count;
        });
    }

    /// Fills the `len` bytes starting at `start` with zeroes, or fewer at the end.
    pub fn clear(&self, start: u64, len: u64) {
        let mut at = start;
        let end = start.saturating_add(len).min(self.len);
        while at < end {
            let count = (end - at).min(ZEROES.0.len() as u64);
            self.copy_from(at, &ZEROES.0[..count as usize]);
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes as _;

    fn memory() -> Arc<GuestMemoryMmap> {
        // Two adjacent regions, and one apart.
        Arc::new(
            GuestMemoryMmap::from_ranges(&[
                (GuestAddress(0), 0x1000),
                (GuestAddress(0x1000), 0x1000),
                (GuestAddress(0x4000), 0x1000),
            ])
            .unwrap(),
        )
    }

    fn guest(ranges: &[(u64, u64)]) -> Result<Buffers, BuffersError> {
        Buffers::guest(
            &memory(),
            ranges.iter().map(|&(gpa, len)| (GuestAddress(gpa), len)),
        )
    }

    #[test]
    fn only_ram_is_accepted() {
        assert_eq!(guest(&[(0xf00, 0x200)]).unwrap().iovecs().len(), 2);
        assert_eq!(guest(&[(0, 16), (0x4ff0, 16)]).unwrap().len(), 32);
        assert_eq!(guest(&[(0, 0)]).unwrap().len(), 0);
        for bad in [
            (0x1ff0, 0x20),
            (0x3000, 1),
            (0x4fff, 2),
            (u64::MAX, 2),
            (0, u64::MAX),
        ] {
            let (gpa, len) = bad;
            assert_eq!(
                guest(&[bad]).unwrap_err(),
                BuffersError::NotRam { gpa, len }
            );
        }
    }

    #[test]
    fn parts_and_copies_have_the_right_bytes() {
        let memory = memory();
        let ranges = [(0xff0, 0x20), (0x4000, 0x10)].map(|(gpa, len)| (GuestAddress(gpa), len));
        let mut all = Buffers::guest(&memory, ranges).unwrap();
        let bytes: Vec<u8> = (0..0x30).collect();
        all.copy_from(0, &bytes);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1001)).unwrap(), 0x11);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x4002)).unwrap(), 0x22);
        let part = all.part(0x0e, 0x14);
        let mut out = [0; 0x14];
        part.copy_to(0, &mut out);
        assert_eq!(out[..], bytes[0x0e..0x22]);
        all.advance(0x12);
        let mut out = [0; 4];
        all.copy_to(0, &mut out);
        assert_eq!(out, [0x12, 0x13, 0x14, 0x15]);
        all.clear(1, 2);
        all.copy_to(0, &mut out);
        assert_eq!(out, [0x12, 0, 0, 0x15]);
        let mut rest = all.part(0, u64::MAX);
        let front = rest.take_front(0x10);
        assert_eq!((front.len(), rest.len()), (0x10, 0x0e));
        let mut out = [0; 1];
        rest.copy_to(0, &mut out);
        assert_eq!(out, [0x22]);
        assert_eq!(all.part(0x1d, 100).len(), 1);
        all.advance(u64::MAX);
        assert!(all.is_empty() && all.iovecs().is_empty());
    }

    #[test]
    fn frozen_bytes_are_not_changed_by_the_guest() {
        let memory = memory();
        let ranges = [(0xff0, 0x20), (0x4000, 0x10)].map(|(gpa, len)| (GuestAddress(gpa), len));
        let mut buffers = Buffers::guest(&memory, ranges).unwrap();
        let bytes: Vec<u8> = (0..0x30).collect();
        buffers.copy_from(0, &bytes);
        assert_eq!(buffers.freeze::<8>(0x0c)[..], bytes[0x0c..0x14]);
        memory
            .write_slice(&[0xff; 0x2000], GuestAddress(0))
            .unwrap();
        let mut out = [0; 0x30];
        buffers.copy_to(0, &mut out);
        assert_eq!(out[..0x0c], [0xff; 0x0c]);
        assert_eq!(out[0x0c..0x14], bytes[0x0c..0x14]);
        assert_eq!(out[0x14..0x20], [0xff; 0x0c]);
        assert_eq!(out[0x20..], bytes[0x20..]);
        assert_eq!((buffers.len(), buffers.iovecs().len()), (0x30, 4));
        // They stay alive in parts of it.
        let part = buffers.part(0x10, 8);
        drop(buffers);
        let mut out = [0; 8];
        part.copy_to(0, &mut out);
        assert_eq!(out, [0x10, 0x11, 0x12, 0x13, 0xff, 0xff, 0xff, 0xff]);
        part.copy_from(0, &[1; 8]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1004)).unwrap(), 0xff);
    }

    #[test]
    fn zeroes_are_bounded_and_read_only() {
        assert_eq!(Buffers::zeroes(512).len(), 512);
        assert_eq!(Buffers::zeroes(0).len(), 0);
        assert_eq!(Buffers::zeroes(u64::MAX).len(), 1 << 20);
        Buffers::zeroes(512).copy_from(0, &[1; 512]);
        assert!(ZEROES.0.iter().all(|&b| b == 0));
    }
}
