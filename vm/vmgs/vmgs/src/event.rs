//! Telling the owner of the store what goes wrong with it.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::store::ProvisioningReason;
use vmgs_format::FileId;

/// Something the owner of a store may want to report to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The store could not be opened.
    InitFailed,
    /// The device has something else on it than a store.
    InvalidFormat,
    /// The store is damaged.
    CorruptFormat,
    /// A file could not be read, written or decrypted.
    AccessFailed(FileId),
    /// The store was formatted.
    Provisioned(ProvisioningReason),
}

impl Event {
    pub(crate) fn of_open_failure(error: &Error) -> Self {
        match error {
            Error::InvalidFormat { .. } | Error::V1Format => Self::InvalidFormat,
            error if error.kind() == ErrorKind::Corrupt => Self::CorruptFormat,
            _ => Self::InitFailed,
        }
    }
}

/// Who hears of [`Event`]s. The default is nobody.
#[derive(Default)]
pub struct EventSink(Option<Box<dyn Fn(Event) + Send>>);

impl EventSink {
    /// Calls `f` for every event. It is called in the middle of operations: it should only pass the
    /// event on.
    pub fn new(f: impl Fn(Event) + Send + 'static) -> Self {
        Self(Some(Box::new(f)))
    }

    pub(crate) fn send(&self, event: Event) {
        tracing::debug!(?event, "store event");
        if let Some(f) = &self.0 {
            f(event);
        }
    }
}
