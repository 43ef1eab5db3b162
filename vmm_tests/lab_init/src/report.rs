//! The report: how the command ended, and how many bytes the host will receive.

use serde::Deserialize;
use serde::Serialize;

/// A file that follows the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentFile {
    /// The name that the job gave.
    pub name: String,
    /// Its length in bytes, or why it could not be read.
    pub size: Result<u64, String>,
}

/// How a job ended: one line of JSON, followed by the contents of `files` in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabReport {
    /// The command's exit status; 128+N if signal N ended it, or why it could not be started.
    pub status: Result<u8, String>,
    /// How many bytes went to the stdout port, so that the host can wait for all of them.
    pub stdout_len: u64,
    /// How many bytes went to the stderr port.
    pub stderr_len: u64,
    /// The files that follow.
    pub files: Vec<SentFile>,
}
