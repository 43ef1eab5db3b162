//! Guest RAM for vectored I/O (readv(2), writev(2)).
#![allow(
    unsafe_code,
    reason = "the kernel takes guest RAM by address, because bytes that the guest may change must not be slices"
)]

use crate::Buffer;
use guest_memory::GuestMemory;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory as _;
use vm_memory::Permissions;
use vm_memory::VolatileSlice;

/// The most pieces that vectored I/O takes (`IOV_MAX`). One is reserved for a spill buffer.
const MAX_PIECES: usize = 1024;

/// Pieces of guest RAM to read into from a file, or to write to a file, without a copy.
///
/// It keeps the memory mapped, so that the addresses are valid as long as it exists.
pub struct GuestIoVec {
    memory: GuestMemory,
    pieces: Vec<libc::iovec>,
    len: usize,
}

// SAFETY: the addresses are in mappings that `memory`, itself Send, keeps alive; no thread owns them.
unsafe impl Send for GuestIoVec {}
// SAFETY: a shared reference gives out addresses, which only the kernel accesses.
unsafe impl Sync for GuestIoVec {}

impl GuestIoVec {
    /// Creates an empty list for pieces of `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            memory: memory.clone(),
            pieces: Vec::new(),
            len: 0,
        }
    }

    /// Removes all pieces, and keeps the allocation.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }

    /// Appends `buffers`. On an error nothing is appended.
    pub fn extend(&mut self, buffers: impl IntoIterator<Item = Buffer>) -> io::Result<()> {
        let (pieces, len) = (self.pieces.len(), self.len);
        for buffer in buffers {
            if let Err(error) = self.push(buffer) {
                self.pieces.truncate(pieces);
                self.len = len;
                return Err(error);
            }
        }
        Ok(())
    }

    fn push(&mut self, buffer: Buffer) -> io::Result<()> {
        let (gpa, len) = (GuestAddress(buffer.gpa), buffer.len as usize);
        let slices = self
            .memory
            .map()
            .get_slices(gpa, len, Permissions::ReadWrite)
            .map_err(io::Error::other)?;
        for slice in slices {
            let slice = slice.map_err(io::Error::other)?;
            if self.pieces.len() >= MAX_PIECES - 1 {
                return Err(io::ErrorKind::ArgumentListTooLong.into());
            }
            self.pieces.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
            self.len += slice.len();
        }
        Ok(())
    }

    /// The total length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes the first `count` bytes, which have been transferred.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        let mut whole = 0;
        for piece in &mut self.pieces {
            if left < piece.iov_len {
                piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(left).cast();
                piece.iov_len -= left;
                break;
            }
            left -= piece.iov_len;
            whole += 1;
        }
        self.pieces.drain(..whole);
    }

    fn count(&self) -> i32 {
        // At most MAX_PIECES.
        self.pieces.len() as i32
    }

    /// Reads a message from `file` into the memory, and what does not fit there into `spill`. Returns the length of
    /// the message.
    ///
    /// For files that discard what is not read at once: taps and datagram sockets.
    pub fn read_message(&mut self, file: impl AsFd, spill: &mut [u8]) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces.push(libc::iovec {
            iov_base: spill.as_mut_ptr().cast(),
            iov_len: spill.len(),
        });
        // SAFETY: the pieces are writable guest RAM that `self.memory` keeps mapped and that no Rust reference
        // points to; `spill` is borrowed as long as its address is in the list.
        let result = transferred(|| unsafe { libc::readv(fd, self.pieces.as_ptr(), self.count()) });
        self.pieces.pop();
        result
    }

    /// Copies `bytes` into the memory. Returns how many there was room for.
    pub fn copy_from(&mut self, bytes: &[u8]) -> usize {
        let mut left = bytes;
        for piece in self.slices() {
            let now;
            (now, left) = left.split_at(left.len().min(piece.len()));
            piece.copy_from(now);
        }
        bytes.len() - left.len()
    }

    /// Copies the memory into `bytes`. Returns how many bytes were copied.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.slices() {
            done += piece.copy_to(&mut bytes[done..]);
        }
        done
    }

    fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        // SAFETY: as in `read_message`; volatile slices may change meanwhile.
        let slice = |piece: &libc::iovec| unsafe {
            VolatileSlice::new(piece.iov_base.cast(), piece.iov_len)
        };
        self.pieces.iter().map(slice)
    }

    /// Writes the memory to `file` (writev(2)). Returns the number of bytes written.
    pub fn write_to(&self, file: impl AsFd) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: as in `read_message`.
        transferred(|| unsafe { libc::writev(fd, self.pieces.as_ptr(), self.count()) })
    }
}

/// Repeats `call` until a signal does not interrupt it. Returns the number of bytes transferred.
fn transferred(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(len) => return Ok(len),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "iovec_test.rs"]
mod tests;
