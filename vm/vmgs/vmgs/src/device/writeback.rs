//! Starting writeback of cached data early.
#![allow(
    unsafe_code,
    reason = "sync_file_range has no safe wrapper in the crates in use"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Asks the kernel to start writing these bytes of a file to the medium, and does not wait for that.
///
/// This makes nothing durable. If writing fails later, the next flush of the file reports it.
pub(super) fn start(file: &File, bytes: &Range<u64>) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(bytes.start).map_err(out_of_range)?;
    let len = i64::try_from(bytes.end.saturating_sub(bytes.start)).map_err(out_of_range)?;
    if len == 0 {
        // The kernel takes 0 as the rest of the file.
        return Ok(());
    }
    // SAFETY: the arguments are numbers, and the descriptor is open while `file` is borrowed.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn writeback_starts_on_files_and_fails_on_pipes() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 8192], 0).unwrap();
        start(&file, &(0..8192)).unwrap();
        start(&file, &(4096..4096)).unwrap();
        assert!(start(&file, &(1 << 63..u64::MAX)).is_err());
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        assert!(start(&pipe, &(0..8192)).is_err());
    }
}
