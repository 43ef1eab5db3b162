//! Options for opening a store.

/// Whether a store may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreAccess {
    /// The store is never written, not even to clear the reprovisioned marker.
    ReadOnly,
    /// The store may be changed. Opening it clears the reprovisioned marker if it is set.
    #[default]
    ReadWrite,
}

/// What to do if one header is damaged and the other is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderPolicy {
    /// Use the valid header, and report the damaged one. The format cannot tell a torn write from a
    /// rollback.
    #[default]
    FallBack,
    /// Refuse to open the store.
    Strict,
}

/// How to open a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Whether the store may be changed.
    pub access: StoreAccess,
    /// What to do if one header is damaged.
    pub headers: HeaderPolicy,
}

/// What to do if a device holds no usable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnProblem {
    /// Leave the device as it is, and fail.
    #[default]
    Fail,
    /// Format the device.
    Format,
}

/// When [`Vmgs::open_or_format`](crate::Vmgs::open_or_format) formats a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenPolicy {
    /// What to do if the device was never formatted. A device with data in its first GiB counts as corrupt.
    pub on_empty: OnProblem,
    /// What to do if the device holds a damaged store, or something else than a store. A device that
    /// fails, or holds a store of an unsupported version, is never formatted: its content may be intact.
    pub on_corrupt: OnProblem,
}
