//! System calls that no safe library has.
#![allow(
    unsafe_code,
    reason = "memory shared with a guest is accessed by address, and locks are described by a C structure"
)]

use crate::job::Call;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd as _;

fn checked(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

/// Performs `call` on `file` and waits for it.
pub(crate) fn run(file: &File, call: &Call<'_>) -> Result<usize, Errno> {
    match call {
        Call::Read { offset, pieces } => {
            let offset = i64::try_from(*offset).map_err(|_| Errno::INVAL)?;
            // SAFETY: the pieces are writable memory that their job keeps mapped, and that others may access.
            checked(unsafe {
                libc::preadv(
                    file.as_raw_fd(),
                    pieces.as_ptr(),
                    pieces.len() as i32,
                    offset,
                )
            })
        }
        Call::Write { offset, pieces } => {
            let offset = i64::try_from(*offset).map_err(|_| Errno::INVAL)?;
            // SAFETY: the pieces are readable memory that their job keeps mapped, and that others may access.
            checked(unsafe {
                libc::pwritev(
                    file.as_raw_fd(),
                    pieces.as_ptr(),
                    pieces.len() as i32,
                    offset,
                )
            })
        }
        Call::Sync => rustix::fs::fdatasync(file).map(|()| 0),
        Call::Allocate { mode, extent } => {
            rustix::fs::fallocate(file, *mode, extent.offset, extent.len).map(|()| 0)
        }
    }
}

/// Reads what is in the page cache, or fails with AGAIN.
pub(crate) fn read_cached(
    file: &File,
    offset: u64,
    pieces: &[libc::iovec],
) -> Result<usize, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let (fd, count) = (file.as_raw_fd(), pieces.len() as i32);
    // SAFETY: the pieces are writable memory that their job keeps mapped, and that others may access.
    checked(unsafe { libc::preadv2(fd, pieces.as_ptr(), count, offset, libc::RWF_NOWAIT) })
}

fn file_lock(kind: i32, start: u64, len: u64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start as i64,
        l_len: len as i64,
        // Must be 0 for locks of open file descriptions.
        l_pid: 0,
    }
}

fn set_lock(file: &File, lock: &libc::flock) -> Result<(), Errno> {
    // SAFETY: `lock` is a complete structure that is only read.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, lock) };
    checked(result as isize).map(|_| ())
}

/// Locks all bytes of `file` exclusively, or fails with AGAIN or ACCESS if others have locks.
pub(crate) fn lock_whole(file: &File) -> Result<(), Errno> {
    set_lock(file, &file_lock(libc::F_WRLCK, 0, 0))
}

/// Releases all locks on bytes of `file`.
pub(crate) fn unlock_whole(file: &File) -> Result<(), Errno> {
    set_lock(file, &file_lock(libc::F_UNLCK, 0, 0))
}

/// Locks a byte of `file`, shared with others that do the same.
pub(crate) fn lock_byte_shared(file: &File, byte: u64) -> Result<(), Errno> {
    set_lock(file, &file_lock(libc::F_RDLCK, byte, 1))
}

/// Whether another user of `file` has any lock on the byte.
pub(crate) fn is_byte_locked(file: &File, byte: u64) -> Result<bool, Errno> {
    let mut lock = file_lock(libc::F_WRLCK, byte, 1);
    // SAFETY: `lock` is a complete structure that the kernel overwrites with another one.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    checked(result as isize)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}
