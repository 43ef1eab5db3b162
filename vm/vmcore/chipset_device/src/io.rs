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
