//! Locks on disk files, so that nobody else writes a disk that a VM uses.
//!
//! Two kinds, both released when the file is closed, however that comes:
//!
//! - `flock` on the file, exclusive for a writable disk and shared for a read-only one. `/proc/locks` tells who has it.
//! - Open file description locks on the bytes by which QEMU tells other instances of itself what it does with an image.
//!   For each permission number p (1 is to write), byte 100 + p is locked by whoever has it, and byte 200 + p by whoever
//!   lets nobody else have it.

use crate::system_call;
use disk_backend::Access;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Pid;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The byte that a QEMU which writes an image has locked.
const QEMU_WRITES: u64 = 101;
/// The byte that a QEMU which lets nobody write an image has locked.
const QEMU_NO_WRITERS: u64 = 201;

/// Who has a lock on a file.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum LockHolder {
    /// Something else in this process: the same file is given twice.
    ThisProcess,
    /// A process.
    Process(u32),
    /// The kernel does not tell.
    Unknown,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => f.write_str("this process (is it given twice?)"),
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    Held(LockHolder),
    Io(io::Error),
}

/// How often, and after how much time, to try again when the holder has ended.
const RETRIES: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Locks `file` for use as a disk, until it is closed.
pub(crate) fn lock(file: &File, access: Access) -> Result<(), LockError> {
    let mut retries = RETRIES;
    loop {
        match try_lock(file, access) {
            // The kernel closes files of a process that was killed during I/O when that is over.
            Err(LockError::Held(LockHolder::Process(pid))) if retries > 0 && has_ended(pid) => {
                retries -= 1;
                std::thread::sleep(RETRY_AFTER);
            }
            result => return result,
        }
    }
}

fn has_ended(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    rustix::process::test_kill_process(pid) == Err(Errno::SRCH)
}

fn try_lock(file: &File, access: Access) -> Result<(), LockError> {
    let operation = match access {
        Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
        Access::ReadOnly => FlockOperation::NonBlockingLockShared,
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(LockError::Held(holder(file))),
        Err(e) => return Err(LockError::Io(e.into())),
    }
    let locked = match access {
        Access::ReadWrite => system_call::lock_whole(file),
        // Sharing with those who read; telling those who would write; and looking for those who do.
        Access::ReadOnly => system_call::lock_byte_shared(file, QEMU_NO_WRITERS)
            .and_then(|()| system_call::is_byte_locked(file, QEMU_WRITES))
            .and_then(|writer| if writer { Err(Errno::AGAIN) } else { Ok(()) }),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            // What `/proc/locks` has of our own lock is not the holder.
            unlock(file);
            Err(LockError::Held(holder(file)))
        }
        Err(error) => {
            // Some file systems have the first kind only.
            tracing::debug!(%error, "no locks on parts of a disk file");
            Ok(())
        }
    }
}

/// Gives all locks back.
pub(crate) fn unlock(file: &File) {
    if let Err(error) = rustix::fs::flock(file, FlockOperation::Unlock) {
        tracing::debug!(%error, "failed to unlock a disk file");
    }
    if let Err(error) = system_call::unlock_whole(file) {
        tracing::debug!(%error, "failed to unlock parts of a disk file");
    }
}

/// Looks for the process that has a lock on `file`.
fn holder(file: &File) -> LockHolder {
    let (Ok(metadata), Ok(locks)) = (file.metadata(), std::fs::read_to_string("/proc/locks"))
    else {
        return LockHolder::Unknown;
    };
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    match find_holder(
        &locks,
        &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
    ) {
        Some(pid) if pid == std::process::id() => LockHolder::ThisProcess,
        Some(pid) => LockHolder::Process(pid),
        None => LockHolder::Unknown,
    }
}

/// Finds a process in `/proc/locks` (proc_locks(5)) that has a lock on the file `id` (device and inode).
fn find_holder(locks: &str, id: &str) -> Option<u32> {
    // "1: FLOCK ADVISORY WRITE 708 fe:00:13548 0 EOF"; waiters have "->" in the second column. The pid is -1 for locks
    // of an open file description, and 0 for processes outside this namespace.
    let mut pids = locks.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let kind = columns.next()?;
        let (pid, file) = (columns.nth(2)?, columns.next()?);
        let pid: u32 = pid.parse().ok()?;
        (kind != "->" && file == id && pid != 0).then_some(pid)
    });
    pids.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_in_the_list() {
        let own = std::process::id();
        let locks = format!(
            "1: OFDLCK ADVISORY  WRITE -1 fe:00:20 0 EOF\n\
             2: -> FLOCK  ADVISORY  WRITE 7 fe:00:20 0 EOF\n\
             3: FLOCK  ADVISORY  READ 708 fe:00:20 0 EOF\n\
             4: POSIX  ADVISORY  READ 709 fe:01:20 0 EOF\n\
             5: FLOCK  ADVISORY  READ {own} fe:00:21 0 EOF\n\
             6: FLOCK  ADVISORY  READ 0 fe:00:22 0 EOF\n\
             rubbish\n"
        );
        assert_eq!(find_holder(&locks, "fe:00:20"), Some(708));
        assert_eq!(find_holder(&locks, "fe:01:20"), Some(709));
        assert_eq!(find_holder(&locks, "fe:00:21"), Some(own));
        assert_eq!(find_holder(&locks, "fe:00:22"), None);
        assert_eq!(find_holder(&locks, "fe:00:2"), None);
    }
}
