//! Reads of data that is in the page cache.

use crate::engine::OpenFile;
use crate::job::Call;
use crate::job::Job;
use crate::system_call;
use disk_backend::DiskError;
use rustix::io::Errno;
use std::ops::ControlFlow;

/// The number of reads to skip after an attempt failed, so that attempts cost little with disks larger than memory.
const SKIPPED_READS: u32 = 31;

/// Attempts of a queue to read from the page cache directly.
///
/// That takes half the time of a read of cached data through a ring, let alone through another thread.
#[derive(Debug, Default)]
pub(crate) struct PageCache {
    /// The number of reads to skip.
    skip: u32,
}

impl PageCache {
    /// Performs `job` if it is a read of cached data. Continues if it must be performed otherwise, maybe in part.
    pub(crate) fn try_read(
        &mut self,
        file: &OpenFile,
        job: &mut Job,
    ) -> ControlFlow<Result<(), DiskError>> {
        let Call::Read { offset, pieces } = job.call() else {
            return ControlFlow::Continue(());
        };
        if file.direct.is_some() {
            return ControlFlow::Continue(());
        }
        if self.skip > 0 {
            self.skip -= 1;
            return ControlFlow::Continue(());
        }
        match system_call::read_cached(&file.file, offset, pieces) {
            // The end of the file and errors are left to the other ways.
            Ok(0) => ControlFlow::Continue(()),
            Ok(count) => job.advance(Ok(count)),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.skip = u32::MAX;
                ControlFlow::Continue(())
            }
            Err(_) => {
                self.skip = SKIPPED_READS;
                ControlFlow::Continue(())
            }
        }
    }
}
