//! What the VPs and devices of one VM share.

use crate::capabilities::Capabilities;
use crate::capabilities::IOAPIC_PINS;
use crate::clock::Clock;
use crate::cpuid::build_cpuid;
use crate::doorbell;
use crate::hypervisor::System;
use crate::irqchip;
use crate::kick::Kick;
use crate::routing;
use crate::routing::Routing;
use crate::slots::Slots;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use kvm_bindings::kvm_msi;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use virt::Error;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::Partition;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::Irqchip;
use virt::x86::Msr;
use virt::x86::PartitionState;

/// One VM. Devices' routes and doorbells keep it, as do its VPs.
pub(crate) struct Shared {
    pub(crate) vm: VmFd,
    pub(crate) system: Arc<System>,
    pub(crate) capabilities: Capabilities,
    pub(crate) irqchip: IrqchipMode,
    pub(crate) processor: ProcessorFeatures,
    pub(crate) slots: Slots,
    pub(crate) routing: Routing,
    pub(crate) clock: Mutex<Clock>,
    pub(crate) topology: Topology,
    /// The chips as KVM made them.
    pub(crate) initial_irqchip: Option<Irqchip>,
    /// A VP's MSRs as KVM made them, read by the first VP that is bound.
    pub(crate) initial_msrs: Mutex<Option<Arc<[Msr]>>>,
    pub(crate) vps: Vec<Arc<VpShared>>,
}

/// What other threads need of a VP.
pub(crate) struct VpShared {
    pub(crate) topology: VpTopology,
    pub(crate) vcpu: Arc<VcpuFd>,
    pub(crate) kick: Arc<Kick>,
    /// The time stamp counter with which the VP goes on when the clock is started.
    pub(crate) stopped_tsc: Mutex<Option<u64>>,
}

/// The `virt` side of a VM.
pub(crate) struct KvmPartition(pub(crate) Arc<Shared>);

impl Shared {
    /// The CPUID table of `vp`.
    pub(crate) fn cpuid(&self, vp: VpTopology) -> Result<Vec<CpuidEntry>, Error> {
        let supported = self.system.supported_cpuid()?;
        let capabilities = &self.capabilities;
        let topology = &self.topology;
        Ok(build_cpuid(
            supported,
            topology,
            vp,
            capabilities,
            &self.processor,
        ))
    }

    fn set_line(&self, gsi: u32, high: bool) -> Result<(), Error> {
        self.vm
            .set_irq_line(gsi, high)
            .map_err(|e| Error::call(format!("set interrupt line {gsi}"), e))
    }
}

impl LineTarget for KvmPartition {
    fn set_line(&self, gsi: u32, high: bool) {
        if let Err(error) = self.0.set_line(gsi, high) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(gsi, high, error, "an interrupt is lost");
        }
    }
}

impl MsiTarget for KvmPartition {
    fn signal(&self, message: MsiMessage) {
        // That no local APIC took it is no error.
        let signalled = self.0.vm.signal_msi(kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        });
        if let Err(error) = signalled {
            let error = &error as &dyn std::error::Error;
            tracing::error!(?message, error, "an interrupt is lost");
        }
    }

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        Ok(routing::new_vector(self.0.clone())?)
    }
}

impl DoorbellTarget for KvmPartition {
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn Doorbell>> {
        Ok(doorbell::register(
            self.0.clone(),
            address,
            matching,
            event,
        )?)
    }
}

impl Partition for KvmPartition {
    fn map(&self, region: GuestRegion, access: MappingAccess) -> Result<(), Error> {
        self.0.slots.map(&self.0.vm, region, access)
    }

    fn unmap(&self, range: MemoryRange) -> Result<(), Error> {
        self.0.slots.unmap(&self.0.vm, range)
    }

    fn take_dirty_pages(&self, range: MemoryRange) -> Result<Vec<u64>, Error> {
        self.0.slots.take_dirty_pages(&self.0.vm, range)
    }

    fn route_line(&self, gsi: u32, msi: Option<MsiMessage>) -> Result<(), Error> {
        if self.0.irqchip != IrqchipMode::Split || gsi >= IOAPIC_PINS {
            return Err(Error::InvalidRequest(format!(
                "interrupt line {gsi} has no MSI"
            )));
        }
        self.0.routing.set(&self.0.vm, gsi, msi)
    }

    fn assert_line(&self, gsi: u32) -> Result<(), Error> {
        self.0.set_line(gsi, true)
    }

    fn stop_clock(&self) -> Result<(), Error> {
        self.0.clock.lock().stop(&self.0.vm, &self.0.vps)
    }

    fn start_clock(&self) -> Result<(), Error> {
        self.0.clock.lock().start(&self.0.vm, &self.0.vps)
    }

    fn reset(&self) -> Result<(), Error> {
        match &self.0.initial_irqchip {
            Some(state) => irqchip::restore(&self.0.vm, state),
            None => Ok(()),
        }
    }

    fn save(&self) -> Result<PartitionState, Error> {
        Ok(PartitionState {
            clock_ns: self.0.clock.lock().nanoseconds(&self.0.vm)?,
            irqchip: match self.0.irqchip {
                IrqchipMode::Kernel => Some(irqchip::save(&self.0.vm)?),
                IrqchipMode::Split => None,
            },
        })
    }

    fn restore(&self, state: &PartitionState) -> Result<(), Error> {
        match (self.0.irqchip, &state.irqchip) {
            (IrqchipMode::Kernel, Some(state)) => irqchip::restore(&self.0.vm, state)?,
            (IrqchipMode::Split, None) => {}
            (IrqchipMode::Kernel, None) => {
                return Err(Error::InvalidRequest(
                    "the saved state lacks the interrupt controllers".to_string(),
                ));
            }
            (IrqchipMode::Split, Some(_)) => {
                return Err(Error::InvalidRequest(
                    "the saved state has interrupt controllers that this partition lacks"
                        .to_string(),
                ));
            }
        }
        self.0.clock.lock().restore(state.clock_ns);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({
            "irqchip": match self.0.irqchip {
                IrqchipMode::Kernel => "kernel",
                IrqchipMode::Split => "split",
            },
            "capabilities": self.0.capabilities,
            "cpuid": self.inspect_cpuid(),
            "interrupt_routes": self.0.routing.used(),
            "memory": self.0.slots.inspect(),
        })
    }
}

impl KvmPartition {
    /// The boot processor's CPUID table, a line for each leaf.
    fn inspect_cpuid(&self) -> serde_json::Value {
        let bsp = self.0.topology.vps().first();
        let Some(Ok(table)) = bsp.map(|&bsp| self.0.cpuid(bsp)) else {
            return serde_json::Value::Null;
        };
        let lines = table.iter().map(|e| {
            let subleaf = e.subleaf.unwrap_or(0);
            format!(
                "{:#010x}.{subleaf:x}: {:08x} {:08x} {:08x} {:08x}",
                e.leaf, e.eax, e.ebx, e.ecx, e.edx
            )
        });
        lines.map(serde_json::Value::String).collect()
    }
}
