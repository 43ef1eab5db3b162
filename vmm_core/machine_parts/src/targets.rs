//! The partition, as devices see it: where their interrupts go, what rings for them, memory they show.

use chipset::ioapic::IoApicRouting;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use chipset_device::RomMapping;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use parking_lot::Mutex;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use virt::MappingAccess;
use virt::Partition;
use vm_memory::GuestMemoryRegion as _;

/// Interrupt lines into the hypervisor's controllers.
pub struct PartitionLines(pub Arc<dyn Partition>);

impl LineTarget for PartitionLines {
    fn set_line(&self, gsi: u32, high: bool) {
        if let Err(error) = self.0.set_line(gsi, high) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(gsi, high, error, "an interrupt is lost");
        }
    }
}

/// The way from the VMM's IOAPIC to the local APICs: the hypervisor holds each pin's message.
pub struct PartitionRouting(pub Arc<dyn Partition>);

impl IoApicRouting for PartitionRouting {
    fn set_route(&self, pin: u8, route: Option<MsiMessage>) {
        if let Err(error) = self.0.route_line(pin.into(), route) {
            tracing::error!(
                pin,
                error = &error as &dyn std::error::Error,
                "an IOAPIC pin is not routed"
            );
        }
    }

    fn assert(&self, pin: u8) -> bool {
        match self.0.set_line(pin.into(), true) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(
                    pin,
                    error = &error as &dyn std::error::Error,
                    "an interrupt is lost"
                );
                false
            }
        }
    }
}

/// Message-signalled interrupts into the local APICs.
pub struct PartitionMsis(pub Arc<dyn Partition>);

impl MsiTarget for PartitionMsis {
    fn signal(&self, message: MsiMessage) {
        if let Err(error) = self.0.signal_msi(message) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(?message, error, "an interrupt is lost");
        }
    }

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        let route = self.0.new_msi_route().map_err(io::Error::other)?;
        Ok(Box::new(PartitionVector(route)))
    }
}

struct PartitionVector(Box<dyn virt::MsiRoute>);

impl MsiVector for PartitionVector {
    fn event(&self) -> BorrowedFd<'_> {
        self.0.event()
    }

    fn enable(&self, message: MsiMessage) -> io::Result<()> {
        self.0.enable(message).map_err(io::Error::other)
    }

    fn disable(&self) -> io::Result<()> {
        self.0.disable().map_err(io::Error::other)
    }
}

/// Doorbells that the hypervisor rings.
pub struct PartitionDoorbells(pub Arc<dyn Partition>);

impl DoorbellTarget for PartitionDoorbells {
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn Doorbell>> {
        self.0
            .register_doorbell(address, matching, event)
            .map_err(io::Error::other)
    }
}

/// A device's memory as a read-only mapping of the partition.
pub struct PartitionRom {
    partition: Arc<dyn Partition>,
    region: GuestRegion,
    shown: Mutex<bool>,
}

impl PartitionRom {
    /// Hidden at first.
    pub fn new(partition: Arc<dyn Partition>, region: GuestRegion) -> Self {
        Self {
            partition,
            region,
            shown: Mutex::new(false),
        }
    }
}

impl RomMapping for PartitionRom {
    fn show(&self) -> io::Result<()> {
        let mut shown = self.shown.lock();
        if !*shown {
            self.partition
                .map(self.region.clone(), MappingAccess::ReadOnly)
                .map_err(io::Error::other)?;
            *shown = true;
        }
        Ok(())
    }

    fn hide(&self) -> io::Result<()> {
        let mut shown = self.shown.lock();
        if *shown {
            let start = self.region.start_addr().0;
            let range = MemoryRange {
                start,
                end: start + self.region.len(),
            };
            self.partition.unmap(range).map_err(io::Error::other)?;
            *shown = false;
        }
        Ok(())
    }
}
