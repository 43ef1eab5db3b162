//! Guest RAM as the kernel's vectored I/O takes it.
#![allow(
    unsafe_code,
    reason = "the kernel takes guest RAM by address; bytes that a guest may change meanwhile are no slices"
)]

use crate::Buffer;
use guest_memory::GuestMemory;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory as _;
use vm_memory::Permissions;

/// The most pieces that readv(2) and its like take: `IOV_MAX`. One is left for a spill.
const MAX_PIECES: usize = 1024;

/// Pieces of guest RAM to read a file into or write to a file from, without a copy.
///
/// It holds on to the memory, so that its addresses stay valid for as long as it exists.
pub struct GuestIoVec {
    memory: GuestMemory,
    pieces: Vec<libc::iovec>,
    len: usize,
}

// SAFETY: the addresses are those of mappings that `memory`, itself Send, keeps alive; no thread owns them.
unsafe impl Send for GuestIoVec {}
// SAFETY: a shared reference gives out addresses, which are not accessed here other than by the kernel.
unsafe impl Sync for GuestIoVec {}

impl GuestIoVec {
    /// No pieces of `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            memory: memory.clone(),
            pieces: Vec::new(),
            len: 0,
        }
    }

    /// Drops all pieces, and keeps the room for them.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.len = 0;
    }

    /// Appends `buffers`. On an error nothing was appended.
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

    /// All bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces as addresses in this process, valid for as long as `self` is.
    pub fn as_raw(&self) -> &[libc::iovec] {
        &self.pieces
    }

    /// Drops the first `count` bytes, which have been transferred.
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

    /// Reads from `file` into the memory (readv(2)), and gives the number of bytes.
    pub fn read_from(&self, file: impl AsFd) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: the pieces are guest RAM that `self.memory` keeps mapped, writable, and never seen as a
        // Rust reference.
        transferred(|| unsafe { libc::readv(fd, self.pieces.as_ptr(), self.count()) })
    }

    /// Reads from `file` into the memory, and what does not fit there into `spill`; gives the number of bytes.
    ///
    /// For files that lose what is not read at once: taps and datagram sockets.
    pub fn read_message(&mut self, file: impl AsFd, spill: &mut [u8]) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces.push(libc::iovec {
            iov_base: spill.as_mut_ptr().cast(),
            iov_len: spill.len(),
        });
        // SAFETY: as in `read_from`; and `spill` is borrowed for as long as its address is in the list.
        let result = transferred(|| unsafe { libc::readv(fd, self.pieces.as_ptr(), self.count()) });
        self.pieces.pop();
        result
    }

    /// Writes the memory to `file` (writev(2)), and gives the number of bytes.
    pub fn write_to(&self, file: impl AsFd) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: as in `read_from`.
        transferred(|| unsafe { libc::writev(fd, self.pieces.as_ptr(), self.count()) })
    }

    /// Reads from `offset` of `file` into the memory (preadv(2)), and gives the number of bytes.
    pub fn read_at(&self, file: impl AsFd, offset: i64) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: as in `read_from`.
        transferred(|| unsafe { libc::preadv(fd, self.pieces.as_ptr(), self.count(), offset) })
    }

    /// Writes the memory to `offset` of `file` (pwritev(2)), and gives the number of bytes.
    pub fn write_at(&self, file: impl AsFd, offset: i64) -> io::Result<usize> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: as in `read_from`.
        transferred(|| unsafe { libc::pwritev(fd, self.pieces.as_ptr(), self.count(), offset) })
    }
}

/// What `call` transferred, once it was not interrupted.
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

impl std::fmt::Debug for GuestIoVec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestIoVec")
            .field("pieces", &self.pieces.len())
            .field("len", &self.len)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use rustix::net::AddressFamily;
    use rustix::net::SocketFlags;
    use rustix::net::SocketType;
    use vm_memory::Bytes as _;

    fn buffer(gpa: u64, len: u32) -> Buffer {
        Buffer { gpa, len }
    }

    fn text(machine: &Machine, gpa: u64, len: usize) -> String {
        let mut bytes = vec![0; len];
        let map = machine.memory.map();
        map.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn files_are_read_and_written_in_pieces() {
        let machine = Machine::new();
        let file = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&file, b"0123456789", 0).unwrap();
        let mut pieces = GuestIoVec::new(&machine.memory);
        let list = [buffer(0x1000, 3), buffer(0x2000, 4)];
        pieces.extend(list).unwrap();
        assert_eq!(pieces.read_at(&file, 2).unwrap(), 7);
        assert_eq!(text(&machine, 0x1000, 3), "234");
        assert_eq!(text(&machine, 0x2000, 4), "5678");
        pieces.advance(4);
        assert_eq!((pieces.len(), pieces.as_raw().len()), (3, 1));
        assert_eq!(pieces.write_at(&file, 0).unwrap(), 3);
        let mut start = [0; 4];
        rustix::io::pread(&file, &mut start, 0).unwrap();
        assert_eq!(&start, b"6783");
        pieces.advance(100);
        assert!(pieces.is_empty());
        assert_eq!(pieces.write_to(&file).unwrap(), 0);
    }

    #[test]
    fn what_is_no_ram_is_refused_and_nothing_appended() {
        let machine = Machine::new();
        let mut pieces = GuestIoVec::new(&machine.memory);
        pieces.extend([buffer(0, 8)]).unwrap();
        for bad in [
            buffer(32 << 20, 1),
            buffer((32 << 20) - 1, 2),
            buffer(u64::MAX, 2),
        ] {
            assert!(pieces.extend([buffer(64, 8), bad]).is_err());
            assert_eq!((pieces.len(), pieces.as_raw().len()), (8, 1));
        }
        let many = std::iter::repeat_n(buffer(0, 1), 2000);
        assert!(pieces.extend(many).is_err());
        assert_eq!(pieces.len(), 8);
    }

    #[test]
    fn a_message_spills_over() {
        let machine = Machine::new();
        let (from, to) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mut pieces = GuestIoVec::new(&machine.memory);
        pieces.extend([buffer(0x1000, 4)]).unwrap();
        let mut spill = [0; 8];
        rustix::io::write(&from, b"message").unwrap();
        assert_eq!(pieces.read_message(&to, &mut spill).unwrap(), 7);
        assert_eq!(text(&machine, 0x1000, 4), "mess");
        assert_eq!(&spill[..4], b"age\0");
        assert_eq!((pieces.len(), pieces.as_raw().len()), (4, 1));
    }
}
