use core::fmt;

/// EFI_STATUS (UEFI specification, appendix D), without the bit that marks errors: the form in which Hyper-V's UEFI
/// device answers.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct EfiStatus(pub u64);

#[allow(missing_docs, reason = "the names are those of the specification")]
impl EfiStatus {
    pub const SUCCESS: Self = Self(0);
    pub const LOAD_ERROR: Self = Self(1);
    pub const INVALID_PARAMETER: Self = Self(2);
    pub const UNSUPPORTED: Self = Self(3);
    pub const BAD_BUFFER_SIZE: Self = Self(4);
    pub const BUFFER_TOO_SMALL: Self = Self(5);
    pub const NOT_READY: Self = Self(6);
    pub const DEVICE_ERROR: Self = Self(7);
    pub const WRITE_PROTECTED: Self = Self(8);
    pub const OUT_OF_RESOURCES: Self = Self(9);
    pub const NOT_FOUND: Self = Self(14);
    pub const ACCESS_DENIED: Self = Self(15);
    pub const ABORTED: Self = Self(21);
    pub const SECURITY_VIOLATION: Self = Self(26);
}

impl fmt::Display for EfiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::SUCCESS => "success",
            Self::LOAD_ERROR => "load error",
            Self::INVALID_PARAMETER => "invalid parameter",
            Self::UNSUPPORTED => "unsupported",
            Self::BAD_BUFFER_SIZE => "bad buffer size",
            Self::BUFFER_TOO_SMALL => "buffer too small",
            Self::NOT_READY => "not ready",
            Self::DEVICE_ERROR => "device error",
            Self::WRITE_PROTECTED => "write protected",
            Self::OUT_OF_RESOURCES => "out of resources",
            Self::NOT_FOUND => "not found",
            Self::ACCESS_DENIED => "access denied",
            Self::ABORTED => "aborted",
            Self::SECURITY_VIOLATION => "security violation",
            Self(other) => return write!(f, "status {other:#x}"),
        })
    }
}
