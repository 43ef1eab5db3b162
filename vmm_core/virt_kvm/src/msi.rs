//! MSIs, raised by a call or by an eventfd: KVM's irqfd.

use crate::ioctl;
use crate::partition::KvmPartition;
use crate::partition::Shared;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use kvm_bindings::KVM_IRQFD_FLAG_DEASSIGN;
use kvm_bindings::kvm_msi;
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use virt::Error;

/// The bits of an MSI's address that no local APIC has.
const RESERVED_ADDRESS: u64 = 0xff << 32;

/// Whether the address can be one of local APICs. KVM does not accept other messages, which a guest can program all the
/// same.
fn is_deliverable(message: MsiMessage) -> bool {
    message.address & RESERVED_ADDRESS == 0
}

impl MsiTarget for KvmPartition {
    fn signal(&self, message: MsiMessage) {
        if !is_deliverable(message) {
            return;
        }
        // It is no error that no local APIC takes it.
        let signalled = self.0.vm.signal_msi(kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        });
        if let Err(error) = signalled
            && let Some(suppressed) = self.0.lost_interrupts.allow()
        {
            let error = &error as &dyn std::error::Error;
            tracing::error!(?message, error, suppressed, "an interrupt is lost");
        }
    }

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let event = rustix::event::eventfd(0, flags)
            .map_err(|e| Error::call("create an eventfd for an interrupt", e))?;
        Ok(Box::new(Vector {
            gsi: self.0.routing.allocate()?,
            partition: self.0.clone(),
            event,
            connected: Mutex::new(false),
        }))
    }
}

/// An eventfd that raises an MSI. While it is disconnected KVM does not listen to it, so that it keeps what was
/// signalled; KVM looks at it when it is connected again.
struct Vector {
    partition: Arc<Shared>,
    gsi: u32,
    event: OwnedFd,
    connected: Mutex<bool>,
}

impl Vector {
    fn irqfd(&self, what: &str, flags: u32) -> Result<(), Error> {
        let gsi = self.gsi;
        ioctl::irqfd(&self.partition.vm, self.event.as_fd(), gsi, flags)
            .map_err(|e| Error::call(format!("{what} interrupt {gsi}"), e))
    }
}

impl MsiVector for Vector {
    fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn enable(&self, message: MsiMessage) -> io::Result<()> {
        let mut connected = self.connected.lock();
        let Shared { vm, routing, .. } = &*self.partition;
        // Events of a GSI without a route are lost.
        routing.set(vm, self.gsi, Some(message).filter(|m| is_deliverable(*m)))?;
        if !*connected {
            self.irqfd("connect an eventfd to", 0)?;
            *connected = true;
        }
        Ok(())
    }

    fn disable(&self) -> io::Result<()> {
        let mut connected = self.connected.lock();
        if *connected {
            self.irqfd("disconnect an eventfd from", KVM_IRQFD_FLAG_DEASSIGN)?;
            *connected = false;
        }
        Ok(())
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        if let Err(error) = self.disable() {
            tracing::warn!(gsi = self.gsi, %error, "failed to disconnect an eventfd");
        }
        self.partition.routing.release(&self.partition.vm, self.gsi);
    }
}
