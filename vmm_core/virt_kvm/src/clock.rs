//! Stopping and starting the guest's clocks: KVM's paravirtual clock and the time stamp counters.
//!
//! KVM lets both run on while no VP runs. When they are started again the paravirtual clock is set back, and each VP
//! gets the TSC offset with which its counter goes on from the value it had. VPs whose counters agree get the same
//! offset: KVM takes its clock for unreliable when offsets differ. Under software virtualization guests read the host's
//! counter, so that only the paravirtual clock stops.

use crate::ioctl;
use crate::msr;
use crate::vp_shared::VpShared;
use kvm_bindings::KVM_CLOCK_TSC_STABLE;
use kvm_bindings::kvm_clock_data;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use virt::Error;
use virt::x86::Msr;

/// The clocks of one partition.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Guests do not just read the host's counter.
    has_tsc_offset: bool,
    /// Where the paravirtual clock stands while it is stopped, in nanoseconds.
    stopped_ns: Option<u64>,
}

fn get_offset(vcpu: &VcpuFd) -> Result<u64, Error> {
    ioctl::get_tsc_offset(vcpu).map_err(|e| Error::call("read a TSC offset", e))
}

fn get_clock(vm: &VmFd) -> Result<kvm_clock_data, Error> {
    vm.get_clock()
        .map_err(|e| Error::call("read the guest's clock", e))
}

fn read_tsc(vcpu: &VcpuFd) -> Result<u64, Error> {
    msr::read_one(vcpu, msr::TSC)?
        .ok_or_else(|| Error::InvalidRequest("the time stamp counter cannot be read".to_string()))
}

impl Clock {
    pub(crate) fn new(has_tsc_offset: bool) -> Self {
        Self {
            has_tsc_offset,
            stopped_ns: None,
        }
    }

    /// The first VP, where its TSC offset can be set and has an effect.
    fn reference<'a>(&self, vps: &'a [Arc<VpShared>]) -> Option<&'a VpShared> {
        let vp = vps.first()?;
        (self.has_tsc_offset && ioctl::has_tsc_offset(&vp.vcpu)).then_some(vp)
    }

    /// See [`virt::Partition::stop_clock`].
    pub(crate) fn stop(&mut self, vm: &VmFd, vps: &[Arc<VpShared>]) -> Result<(), Error> {
        if self.stopped_ns.is_some() {
            return Ok(());
        }
        let clock = get_clock(vm)?;
        if let Some(reference) = self.reference(vps) {
            let now = read_tsc(&reference.vcpu)?;
            // Where KVM trusts the host's counter, offsets stay what they are and tell which VPs agree. Else it
            // changes them all the time, and each VP has to be asked.
            let stable = clock.flags & KVM_CLOCK_TSC_STABLE != 0;
            let reference = get_offset(&reference.vcpu)?;
            for vp in vps {
                let tsc = if stable {
                    now.wrapping_add(get_offset(&vp.vcpu)?.wrapping_sub(reference))
                } else {
                    read_tsc(&vp.vcpu)?
                };
                *vp.stopped_tsc.lock() = Some(tsc);
            }
        }
        self.stopped_ns = Some(clock.clock);
        Ok(())
    }

    /// See [`virt::Partition::start_clock`].
    pub(crate) fn start(&mut self, vm: &VmFd, vps: &[Arc<VpShared>]) -> Result<(), Error> {
        let Some(clock) = self.stopped_ns else {
            // This is the VM's first start.
            return Ok(());
        };
        if let Some(reference) = self.reference(vps) {
            // The host's counter, scaled to the guest's frequency: the guest's with an offset of zero.
            let host = read_tsc(&reference.vcpu)?.wrapping_sub(get_offset(&reference.vcpu)?);
            for vp in vps {
                let Some(tsc) = *vp.stopped_tsc.lock() else {
                    continue;
                };
                ioctl::set_tsc_offset(&vp.vcpu, tsc.wrapping_sub(host))
                    .map_err(|e| Error::call("write a TSC offset", e))?;
                rearm_deadline(&vp.vcpu)?;
            }
        }
        vm.set_clock(&kvm_clock_data {
            clock,
            ..Default::default()
        })
        .map_err(|e| Error::call("set the guest's clock", e))?;
        for vp in vps {
            *vp.stopped_tsc.lock() = None;
            // Tells the guest's watchdogs that it did not hang. Refused where the guest has no such clock.
            if let Err(error) = vp.vcpu.kvmclock_ctrl() {
                tracing::trace!(vp = vp.topology.index.0, %error, "no paravirtual clock to mark");
            }
        }
        self.stopped_ns = None;
        Ok(())
    }

    /// The paravirtual clock, in nanoseconds.
    pub(crate) fn nanoseconds(&self, vm: &VmFd) -> Result<u64, Error> {
        match self.stopped_ns {
            Some(clock) => Ok(clock),
            None => Ok(get_clock(vm)?.clock),
        }
    }

    /// Makes the clock start from `clock_ns`; it is stopped until then.
    pub(crate) fn restore(&mut self, clock_ns: u64) {
        self.stopped_ns = Some(clock_ns);
    }

    /// A VP's counter: when the clock was stopped, or now.
    pub(crate) fn tsc(vp: &VpShared) -> Result<u64, Error> {
        let stopped = *vp.stopped_tsc.lock();
        match stopped {
            Some(tsc) => Ok(tsc),
            None => read_tsc(&vp.vcpu),
        }
    }
}

/// KVM's timer for TSC_DEADLINE was set by the offset of before; writing the register sets it anew.
fn rearm_deadline(vcpu: &VcpuFd) -> Result<(), Error> {
    let index = msr::TSC_DEADLINE;
    match msr::read_one(vcpu, index)? {
        None | Some(0) => Ok(()),
        Some(value) => msr::write(vcpu, &[Msr { index, value }], msr::Tolerance::None),
    }
}
