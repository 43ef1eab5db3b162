//! Stopping and starting the guest's clocks: KVM's paravirtual clock and the time stamp counters.
//!
//! KVM lets both run on while no VP runs. So the paravirtual clock is set back when it is started, and the
//! TSC offset of each VP is moved by what the host's counter advanced in between: the same amount for all of
//! them, because KVM takes its clock for unreliable when the VPs' offsets differ. Under software
//! virtualization guests read the host's counter; there only the paravirtual clock stops.

use crate::ioctl;
use crate::msr;
use crate::partition::VpShared;
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
    stopped: Option<Stopped>,
}

#[derive(Debug, Copy, Clone)]
struct Stopped {
    clock_ns: u64,
    /// The host's counter in guest ticks; `None` when the state came from elsewhere.
    host_tsc: Option<u64>,
}

fn get_offset(vcpu: &VcpuFd) -> Result<u64, Error> {
    ioctl::get_tsc_offset(vcpu).map_err(|e| Error::call("read a TSC offset", e))
}

fn get_clock(vm: &VmFd) -> Result<u64, Error> {
    let clock = vm
        .get_clock()
        .map_err(|e| Error::call("read the guest's clock", e))?;
    Ok(clock.clock)
}

/// The host's counter as the guest would see it with an offset of zero: scaled to the guest's frequency.
fn scaled_host_tsc(vcpu: &VcpuFd) -> Result<u64, Error> {
    let tsc = msr::read_one(vcpu, msr::TSC)?.ok_or_else(|| {
        Error::InvalidRequest("the time stamp counter cannot be read".to_string())
    })?;
    Ok(tsc.wrapping_sub(get_offset(vcpu)?))
}

impl Clock {
    pub(crate) fn new(has_tsc_offset: bool) -> Self {
        Self {
            has_tsc_offset,
            stopped: None,
        }
    }

    fn host_tsc(&self, vps: &[Arc<VpShared>]) -> Result<Option<u64>, Error> {
        match vps.first() {
            Some(vp) if self.has_tsc_offset && ioctl::has_tsc_offset(&vp.vcpu) => {
                Ok(Some(scaled_host_tsc(&vp.vcpu)?))
            }
            _ => Ok(None),
        }
    }

    /// See [`virt::Partition::stop_clock`].
    pub(crate) fn stop(&mut self, vm: &VmFd, vps: &[Arc<VpShared>]) -> Result<(), Error> {
        if self.stopped.is_none() {
            self.stopped = Some(Stopped {
                clock_ns: get_clock(vm)?,
                host_tsc: self.host_tsc(vps)?,
            });
        }
        Ok(())
    }

    /// See [`virt::Partition::start_clock`].
    pub(crate) fn start(&mut self, vm: &VmFd, vps: &[Arc<VpShared>]) -> Result<(), Error> {
        let Some(stopped) = self.stopped else {
            // It never stood still, or this is the VM's first start.
            return Ok(());
        };
        if let Some(now) = self.host_tsc(vps)? {
            let elapsed = stopped.host_tsc.map(|then| now.wrapping_sub(then));
            for vp in vps {
                let offset = match *vp.new_tsc.lock() {
                    Some(tsc) => tsc.wrapping_sub(now),
                    None => match elapsed {
                        Some(elapsed) => get_offset(&vp.vcpu)?.wrapping_sub(elapsed),
                        None => continue,
                    },
                };
                ioctl::set_tsc_offset(&vp.vcpu, offset)
                    .map_err(|e| Error::call("write a TSC offset", e))?;
                rearm_deadline(&vp.vcpu)?;
            }
        }
        vm.set_clock(&kvm_clock_data {
            clock: stopped.clock_ns,
            ..Default::default()
        })
        .map_err(|e| Error::call("set the guest's clock", e))?;
        for vp in vps {
            *vp.new_tsc.lock() = None;
            // Tells the guest's watchdogs that it did not hang. Refused where the guest has no such clock.
            if let Err(error) = vp.vcpu.kvmclock_ctrl() {
                tracing::trace!(vp = vp.topology.index.0, %error, "no paravirtual clock to mark");
            }
        }
        self.stopped = None;
        Ok(())
    }

    /// The paravirtual clock, in nanoseconds.
    pub(crate) fn nanoseconds(&self, vm: &VmFd) -> Result<u64, Error> {
        match self.stopped {
            Some(stopped) => Ok(stopped.clock_ns),
            None => get_clock(vm),
        }
    }

    /// Makes the clock start from `clock_ns`; it is stopped until then.
    pub(crate) fn restore(&mut self, clock_ns: u64) {
        self.stopped = Some(Stopped {
            clock_ns,
            host_tsc: self.stopped.and_then(|s| s.host_tsc),
        });
    }

    /// A VP's counter: when the clock was stopped, or now.
    pub(crate) fn tsc(&self, vp: &VpShared) -> Result<u64, Error> {
        if let Some(tsc) = *vp.new_tsc.lock() {
            return Ok(tsc);
        }
        match self.stopped.and_then(|s| s.host_tsc) {
            Some(host_tsc) => Ok(host_tsc.wrapping_add(get_offset(&vp.vcpu)?)),
            None => Ok(msr::read_one(&vp.vcpu, msr::TSC)?.unwrap_or(0)),
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
