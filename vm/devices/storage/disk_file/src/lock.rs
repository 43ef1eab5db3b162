//! Locks on disk files, so that no other process writes a disk that a VM uses.
//!
//! Two kinds, both released when the file is closed, even if the process is killed:
//!
//! - `flock` on the file, exclusive for a writable disk and shared for a read-only one. `/proc/locks` has the holder.
//! - Open file description locks on the bytes by which QEMU instances coordinate their use of an image. For each
//!   permission number p (1 is write), a process that has it locks byte 100 + p, and a process that denies it to others
//!   locks byte 200 + p.

use crate::system_call;
use disk_backend::DiskAccess;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Pid;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The byte that QEMU locks if it writes the image.
const QEMU_WRITES: u64 = 101;
/// The byte that QEMU locks if it denies writes to others.
const QEMU_NO_WRITERS: u64 = 201;

/// The holder of a lock on a file.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum LockHolder {
    /// This process: the file is used twice.
    ThisProcess,
    /// The process with this ID.
    Process(u32),
    /// The kernel does not report it.
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

/// Why a file cannot be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    Held(LockHolder),
    Io(io::Error),
}

/// The number of retries, and the time between them, when the holder has ended.
const RETRIES: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// How often `/proc/locks` is read for a holder that is not in it.
const LOCKS_READS: u32 = 10;

/// Locks `file` for use as a disk, until it is closed.
pub(crate) fn lock(file: &File, access: DiskAccess) -> Result<(), LockError> {
    let mut retries = RETRIES;
    loop {
        match try_lock(file, access) {
            // The kernel closes the files of a process that was killed during I/O only when the I/O is done.
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

fn try_lock(file: &File, access: DiskAccess) -> Result<(), LockError> {
    let operation = match access {
        DiskAccess::ReadWrite => FlockOperation::NonBlockingLockExclusive,
        DiskAccess::ReadOnly => FlockOperation::NonBlockingLockShared,
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(LockError::Held(holder(file))),
        Err(e) => return Err(LockError::Io(e.into())),
    }
    let locked = match access {
        DiskAccess::ReadWrite => system_call::lock_whole(file),
        // Shares with readers, denies writes to others, and checks for a writer.
        DiskAccess::ReadOnly => system_call::lock_byte_shared(file, QEMU_NO_WRITERS)
            .and_then(|()| system_call::is_byte_locked(file, QEMU_WRITES))
            .and_then(|writer| if writer { Err(Errno::AGAIN) } else { Ok(()) }),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            // Otherwise this process would be found in `/proc/locks`.
            unlock(file);
            Err(LockError::Held(holder(file)))
        }
        Err(error) => {
            // Some file systems support only `flock`.
            tracing::debug!(%error, "failed to lock byte ranges of a disk file");
            Ok(())
        }
    }
}

/// Releases all locks.
pub(crate) fn unlock(file: &File) {
    if let Err(error) = rustix::fs::flock(file, FlockOperation::Unlock) {
        tracing::debug!(%error, "failed to unlock a disk file");
    }
    if let Err(error) = system_call::unlock_whole(file) {
        tracing::debug!(%error, "failed to unlock byte ranges of a disk file");
    }
}

/// Finds the process that has a lock on `file`.
fn holder(file: &File) -> LockHolder {
    let Ok(metadata) = file.metadata() else {
        return LockHolder::Unknown;
    };
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let id = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    // The kernel leaves out locks while others come and go.
    let mut found = (0..LOCKS_READS).filter_map(|_| {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        find_holder(&locks, &id)
    });
    match found.next() {
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
    fn holders_are_found_in_proc_locks() {
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
