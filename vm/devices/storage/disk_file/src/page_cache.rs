//! Reads of what the host has in memory already.

use crate::engine::OpenFile;
use crate::job::Call;
use crate::job::Job;
use crate::system_call;
use disk_backend::DiskError;
use rustix::io::Errno;
use std::ops::ControlFlow;

/// Reads that are not tried after one that was in vain, so that disks larger than memory lose next to nothing.
const PAUSE: u32 = 31;

/// A queue's experience with the page cache.
///
/// A read of cached data takes half the time when it is simply made than by way of a ring, let alone of another thread.
#[derive(Debug, Default)]
pub(crate) struct PageCache {
    /// The next reads not to try.
    pause: u32,
}

impl PageCache {
    /// Does `job` if that is a read of cached data; otherwise it has to go on, maybe with a part of it done.
    pub(crate) fn try_read(
        &mut self,
        file: &OpenFile,
        job: &mut Job,
    ) -> ControlFlow<Result<(), DiskError>> {
        let Call::Read { offset, pieces } = job.call() else {
            return ControlFlow::Continue(());
        };
        if self.pause > 0 {
            self.pause -= 1;
            return ControlFlow::Continue(());
        }
        match system_call::read_cached(&file.file, offset, pieces) {
            // The end of the file is left to the usual way, and so are errors.
            Ok(0) => ControlFlow::Continue(()),
            Ok(count) => job.advance(Ok(count)),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.pause = u32::MAX;
                ControlFlow::Continue(())
            }
            Err(_) => {
                self.pause = PAUSE;
                ControlFlow::Continue(())
            }
        }
    }
}
