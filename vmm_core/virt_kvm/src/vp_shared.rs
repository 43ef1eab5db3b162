use crate::kick::Kick;
use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;
use std::sync::Arc;
use virt::VpTopology;

/// What other threads need of a VP.
pub(crate) struct VpShared {
    pub(crate) topology: VpTopology,
    pub(crate) vcpu: Arc<VcpuFd>,
    pub(crate) kick: Arc<Kick>,
    /// The time stamp counter with which the VP goes on when the clock is started.
    pub(crate) stopped_tsc: Mutex<Option<u64>>,
}
