//! The KVM backend of the virt traits.
