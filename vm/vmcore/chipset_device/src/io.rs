/// Why a device did not take an access. Never fatal: a read gives all ones, a write is dropped, and
/// the chipset logs it at a limited rate.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The device does not take accesses of this size here.
    #[error("unsupported access size")]
    InvalidAccessSize,
    /// There is no register at this address.
    #[error("no such register")]
    InvalidRegister,
    /// The register exists, and the value is impossible.
    #[error("invalid value")]
    InvalidValue,
}
