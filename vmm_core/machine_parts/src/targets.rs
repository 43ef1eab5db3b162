//! The partition, as devices see it where its own traits are not what they ask for.

use chipset::ioapic::IoApicRouting;
use chipset_device::MsiMessage;
use chipset_device::RomMapping;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use log_limit::LogLimit;
use parking_lot::Mutex;
use std::error::Error;
use std::io;
use std::sync::Arc;
use virt::MappingAccess;
use virt::Partition;
use vm_memory::GuestMemoryRegion as _;

/// Connects the VMM's IOAPIC to the local APICs: the hypervisor holds each pin's message.
pub struct PartitionRouting {
    partition: Arc<dyn Partition>,
    failures: LogLimit,
}

impl PartitionRouting {
    /// To the local APICs of `partition`.
    pub fn new(partition: Arc<dyn Partition>) -> Self {
        Self {
            partition,
            failures: LogLimit::new(),
        }
    }
}

impl IoApicRouting for PartitionRouting {
    fn set_route(&self, pin: u8, route: Option<MsiMessage>) {
        if let Err(error) = self.partition.route_line(pin.into(), route)
            && let Some(suppressed) = self.failures.allow()
        {
            let error = &error as &dyn Error;
            tracing::error!(pin, error, suppressed, "failed to route an IOAPIC pin");
        }
    }

    fn assert(&self, pin: u8) -> bool {
        let asserted = self.partition.assert_line(pin.into());
        if let Err(error) = &asserted
            && let Some(suppressed) = self.failures.allow()
        {
            let error = error as &dyn Error;
            tracing::error!(pin, error, suppressed, "an interrupt is lost");
        }
        asserted.is_ok()
    }
}

/// A device's memory as a read-only mapping of the partition.
pub struct PartitionRom {
    partition: Arc<dyn Partition>,
    region: GuestRegion,
    mapped: Mutex<bool>,
}

impl PartitionRom {
    /// Not mapped at first.
    pub fn new(partition: Arc<dyn Partition>, region: GuestRegion) -> Self {
        Self {
            partition,
            region,
            mapped: Mutex::new(false),
        }
    }
}

impl RomMapping for PartitionRom {
    fn show(&self) -> io::Result<()> {
        let mut mapped = self.mapped.lock();
        if !*mapped {
            let region = self.region.clone();
            self.partition.map(region, MappingAccess::ReadOnly)?;
            *mapped = true;
        }
        Ok(())
    }

    fn hide(&self) -> io::Result<()> {
        let mut mapped = self.mapped.lock();
        if *mapped {
            let start = self.region.start_addr().0;
            let end = start + self.region.len();
            self.partition.unmap(MemoryRange { start, end })?;
            *mapped = false;
        }
        Ok(())
    }
}
