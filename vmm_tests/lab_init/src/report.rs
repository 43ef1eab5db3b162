//! The report: how the command ended, and which bytes the host still has to expect.

use serde::Deserialize;
use serde::Serialize;

/// A file that follows the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutFile {
    /// The name as the job asked for it.
    pub name: String,
    /// Its length in bytes, or why it could not be read.
    pub size: Result<u64, String>,
}

/// How a job ended: one line of JSON, followed by the contents of `files` in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The command's exit status; 128+N if signal N ended it, or why it could not be started.
    pub status: Result<u8, String>,
    /// How many bytes went to the stdout port. The host has all of the output once it has these.
    pub stdout_len: u64,
    /// How many bytes went to the stderr port.
    pub stderr_len: u64,
    /// The files that follow.
    pub files: Vec<OutFile>,
}
