use crate::VpIndex;
use crate::x86::nested::NestedStateError;
use std::io;

/// Why a request to the hypervisor failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no such hypervisor.
    #[error("{device} does not exist: {advice}")]
    Unavailable {
        /// The hypervisor's device.
        device: &'static str,
        /// What the user can do.
        advice: &'static str,
    },
    /// The user may not use the hypervisor.
    #[error("no permission to open {device}: {advice}")]
    NotPermitted {
        /// The hypervisor's device.
        device: &'static str,
        /// What the user can do.
        advice: &'static str,
    },
    /// The hypervisor lacks something this VM needs.
    #[error("the hypervisor lacks {what}")]
    MissingCapability {
        /// The capability, by the hypervisor's own name for it.
        what: &'static str,
    },
    /// The host cannot give a guest nested virtualization.
    #[error(
        "the host offers guests no nested virtualization: load kvm_intel or kvm_amd with the parameter nested=1, if the \
         host's processor has VMX or SVM"
    )]
    NestedNotSupported,
    /// The request is impossible for this partition.
    #[error("{0}")]
    InvalidRequest(String),
    /// Saved nested state does not fit to this guest and host.
    #[error("the saved nested state of {vp} cannot be restored")]
    NestedState {
        /// Whose state it is.
        vp: VpIndex,
        /// What is wrong.
        #[source]
        source: NestedStateError,
    },
    /// A call to the hypervisor failed.
    #[error("failed to {operation}")]
    Call {
        /// What was attempted.
        operation: String,
        /// The hypervisor's error.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// A failed call to the hypervisor.
    pub fn call(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Call {
            operation: operation.into(),
            source: source.into(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
