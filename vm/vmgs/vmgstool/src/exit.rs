//! Exit codes.

use vmgs::ContainerError;
use vmgs::Error;

/// Anything that has no code of its own.
pub(crate) const FAILURE: u8 = 1;
/// Not encrypted (also what the argument parser uses for wrong usage).
pub(crate) const NOT_ENCRYPTED: u8 = 2;
/// The store, or its file, is empty.
pub(crate) const EMPTY: u8 = 3;
/// There is no such file.
pub(crate) const NOT_ALLOCATED: u8 = 4;
/// The store has the version 1 format.
pub(crate) const V1_FORMAT: u8 = 5;
/// Encrypted by the VM's id.
pub(crate) const GSP_BY_ID: u8 = 6;
/// Encrypted by means unknown.
pub(crate) const GSP_UNKNOWN: u8 = 7;
/// Verifying found weaknesses; nothing is lost.
pub(crate) const VERIFY_WARNING: u8 = 8;
/// Verifying found that content is lost or cannot be trusted.
pub(crate) const VERIFY_ERROR: u8 = 9;

/// A result that is told by the exit code, and by nothing on standard error.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) u8);

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Answer {}

/// The exit code for an error, and whether it is one worth alarming anybody.
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

/// Logs an error and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if let Some(Answer(code)) = error.downcast_ref() {
        return *code;
    }
    let (code, level) = classify(error);
    // The alternate form has all causes on one line.
    if level == tracing::Level::INFO {
        tracing::info!("{error:#}");
    } else {
        tracing::error!("{error:#}");
    }
    code
}
