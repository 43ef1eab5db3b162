//! Keeps a guest from changing the format that its disk is found to have.

use crate::format;
use crate::format::EDGE;
use crate::format::Found;
use disk_backend::DiskError;
use disk_backend::DiskOperation;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// The guest's part of a file whose format was found and not given.
///
/// Writes after which the file would be found to have another format fail. Zeroes never have this effect.
#[derive(Debug)]
pub(crate) struct FormatGuard {
    found: Found,
    tail: [u8; EDGE],
    /// The offset of the file's last bytes, if they are the guest's.
    last: Option<u64>,
    logged: AtomicBool,
}

impl FormatGuard {
    /// Guards a raw disk of `size` bytes, all of its file.
    pub(crate) fn raw(size: u64) -> Self {
        Self {
            found: Found::Raw,
            tail: [0; EDGE],
            last: size.checked_sub(EDGE as u64),
            logged: AtomicBool::new(false),
        }
    }

    /// Guards a VHD that ends with `footer`, which the guest cannot change.
    pub(crate) fn vhd(footer: [u8; EDGE]) -> Self {
        Self {
            found: Found::Vhd,
            tail: footer,
            last: None,
            logged: AtomicBool::new(false),
        }
    }

    /// Checks `operation` on the disk called `disk`. The bytes that were checked are those that are written, whatever
    /// the guest does to its memory.
    pub(crate) fn check(&self, disk: &str, operation: &mut DiskOperation) -> Result<(), DiskError> {
        let DiskOperation::Write { offset, buffers } = operation else {
            return Ok(());
        };
        let (offset, end) = (*offset, offset.saturating_add(buffers.len()));
        let mut found = self.found;
        if offset == 0 && end != 0 {
            found = format::find(&buffers.freeze(0), &self.tail);
        }
        if let Some(last) = self.last
            && (offset..end).contains(&last)
            && found == self.found
        {
            let tail = buffers.freeze(last - offset);
            found = format::find(&[0; EDGE], &tail);
        }
        if found == self.found {
            return Ok(());
        }
        let (is, becomes) = (self.found.name(), found.name());
        if !self.logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                disk,
                is,
                becomes,
                "refused the guest a write that would change the format its disk is found to have; \
                 `format=` says it instead, and allows the write"
            );
        }
        Err(DiskError::ChangesFormat { becomes })
    }
}
