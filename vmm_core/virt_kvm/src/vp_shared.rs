use crate::kick::Kick;
use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;
use std::sync::Arc;
use virt::VpTopology;

/// The part of a VP that other threads use.
pub(crate) struct VpShared {
    pub(crate) topology: VpTopology,
    pub(crate) vcpu: Arc<VcpuFd>,
    pub(crate) kick: Arc<Kick>,
    /// The value of the time stamp counter when the clock is started; `None` while it runs.
    pub(crate) stopped_tsc: Mutex<Option<u64>>,
}
