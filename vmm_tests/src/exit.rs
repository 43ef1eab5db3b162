//! openvmm's documented exit codes.

/// How openvmm ended, by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OpenvmmExit {
    PoweredOff,
    HostError,
    ConfigError,
    HypervisorError,
    TripleFault,
    GuestReset,
    GuestPanic,
    Hibernated,
    Quit,
    /// Ended by this signal, whether openvmm handled it (128+N) or the kernel did.
    Signal(i32),
    Unknown(i32),
}

impl From<std::process::ExitStatus> for OpenvmmExit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::PoweredOff,
            (Some(1), _) => Self::HostError,
            (Some(2), _) => Self::ConfigError,
            (Some(3), _) => Self::HypervisorError,
            (Some(4), _) => Self::TripleFault,
            (Some(5), _) => Self::GuestReset,
            (Some(6), _) => Self::GuestPanic,
            (Some(7), _) => Self::Hibernated,
            (Some(8), _) => Self::Quit,
            (Some(code), _) if code > 128 => Self::Signal(code - 128),
            (Some(code), _) => Self::Unknown(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}
