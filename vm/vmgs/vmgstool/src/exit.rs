//! Exit codes.

use vmgs::ContainerError;
use vmgs::Error;

/// Any error without a code of its own.
pub(crate) const FAILURE: u8 = 1;
/// Not encrypted. The argument parser also uses this code, for wrong usage.
pub(crate) const NOT_ENCRYPTED: u8 = 2;
/// The store, or its file, is empty.
pub(crate) const EMPTY: u8 = 3;
/// The file does not exist in the store.
pub(crate) const NOT_ALLOCATED: u8 = 4;
/// The store has the version 1 format.
pub(crate) const V1_FORMAT: u8 = 5;
/// Encrypted with a key derived from the VM's id.
pub(crate) const GSP_BY_ID: u8 = 6;
/// Encrypted with a key of unknown origin.
pub(crate) const GSP_UNKNOWN: u8 = 7;
/// `verify` found problems, but no lost content.
pub(crate) const VERIFY_WARNING: u8 = 8;
/// `verify` found content that is lost or cannot be trusted.
pub(crate) const VERIFY_ERROR: u8 = 9;

/// A result that is reported by this exit code only, without an error message.
#[derive(Debug)]
pub(crate) struct QuietExit(pub(crate) u8);

impl std::fmt::Display for QuietExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for QuietExit {}

/// The exit code for an error, and the level at which it is logged.
fn classify(error: &anyhow::Error) -> (u8, tracing::Level) {
    use tracing::Level;
    for cause in error.chain() {
        match cause.downcast_ref::<Error>() {
            Some(Error::Empty) => return (EMPTY, Level::INFO),
            Some(Error::NotAllocated(_)) => return (NOT_ALLOCATED, Level::INFO),
            Some(Error::V1Format) => return (V1_FORMAT, Level::ERROR),
            _ => {}
        }
        if let Some(ContainerError::ZeroLength) = cause.downcast_ref() {
            return (EMPTY, Level::ERROR);
        }
    }
    (FAILURE, Level::ERROR)
}

/// Whether this is the answer to a query, and not a failure.
pub(crate) fn is_answer(error: &anyhow::Error) -> bool {
    error.is::<QuietExit>()
}

/// Logs an error and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if let Some(QuietExit(code)) = error.downcast_ref() {
        return *code;
    }
    let (code, level) = classify(error);
    // The alternate form prints all causes on one line.
    if level == tracing::Level::INFO {
        tracing::info!("{error:#}");
    } else {
        tracing::error!("{error:#}");
    }
    code
}
