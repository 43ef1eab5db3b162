//! Guest writes that signal an eventfd without an exit to the VMM: KVM's ioeventfd.

use crate::ioctl;
use crate::partition::KvmPartition;
use crate::partition::Shared;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use kvm_bindings::*;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use virt::Error;

struct KvmDoorbell {
    partition: Arc<Shared>,
    request: kvm_ioeventfd,
    /// KVM knows the doorbell by the eventfd too; the descriptor must stay valid to remove it.
    _event: OwnedFd,
}

fn request(address: DoorbellAddress, matching: DoorbellMatch, fd: i32) -> kvm_ioeventfd {
    let (addr, mut flags) = match address {
        DoorbellAddress::Port(port) => (port.into(), 1 << kvm_ioeventfd_flag_nr_pio),
        DoorbellAddress::Gpa(gpa) => (gpa, 0),
    };
    let (len, datamatch) = match matching {
        DoorbellMatch::Any => (0, 0),
        DoorbellMatch::U16(value) => (2, value.into()),
        DoorbellMatch::U32(value) => (4, value.into()),
    };
    if len != 0 {
        flags |= 1 << kvm_ioeventfd_flag_nr_datamatch;
    }
    kvm_ioeventfd {
        datamatch,
        addr,
        len,
        fd,
        flags,
        ..Default::default()
    }
}

impl DoorbellTarget for KvmPartition {
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn Doorbell>> {
        let event = event
            .try_clone_to_owned()
            .map_err(|e| Error::call("duplicate a doorbell's eventfd", e))?;
        let request = request(address, matching, event.as_raw_fd());
        ioctl::ioeventfd(&self.0.vm, &request)
            .map_err(|e| Error::call(format!("register a doorbell at {address:x?}"), e))?;
        Ok(Box::new(KvmDoorbell {
            partition: self.0.clone(),
            request,
            _event: event,
        }))
    }
}

impl Doorbell for KvmDoorbell {}

impl Drop for KvmDoorbell {
    fn drop(&mut self) {
        let request = kvm_ioeventfd {
            flags: self.request.flags | 1 << kvm_ioeventfd_flag_nr_deassign,
            ..self.request
        };
        if let Err(error) = ioctl::ioeventfd(&self.partition.vm, &request) {
            tracing::warn!(address = request.addr, %error, "failed to remove a doorbell");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_encode_address_and_match() {
        let any = request(DoorbellAddress::Gpa(0xd000_0000), DoorbellMatch::Any, 5);
        assert_eq!((any.len, any.flags, any.fd), (0, 0, 5));
        let port = request(DoorbellAddress::Port(0xc010), DoorbellMatch::U16(3), 5);
        assert_eq!((port.addr, port.len, port.datamatch), (0xc010, 2, 3));
        assert_eq!(port.flags, 0b11);
    }
}
