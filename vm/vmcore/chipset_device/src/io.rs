use std::array::TryFromSliceError;

/// Why a device rejected an access. Never fatal: a read returns all ones, a write is dropped, and the chipset
/// logs it at a limited rate.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The register does not support accesses of this size.
    #[error("unsupported access size")]
    InvalidAccessSize,
    /// There is no register at this address.
    #[error("no such register")]
    InvalidRegister,
    /// The register does not support this value.
    #[error("invalid value")]
    InvalidValue,
}

/// For `let [value]: &[u8; 1] = data.try_into()?`: a register refuses accesses of another size than its own.
impl From<TryFromSliceError> for IoError {
    fn from(_: TryFromSliceError) -> Self {
        Self::InvalidAccessSize
    }
}
