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
use virt::VpIndex;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::Irqchip;
use virt::x86::Msr;
use virt::x86::PartitionState;

/// An MSI's address: bits 19:12 are the destination, the rest of the low bits say 'physical, no hint'.
const MSI_ADDRESS: u64 = 0xfee0_0000;
/// An MSI's data: delivery mode NMI.
const MSI_DELIVER_NMI: u32 = 0b100 << 8;

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

    /// Raises an MSI; whether a local APIC took it.
    fn signal_msi(&self, msi: MsiMessage) -> Result<bool, Error> {
        self.vm
            .signal_msi(kvm_msi {
                address_lo: msi.address as u32,
                address_hi: (msi.address >> 32) as u32,
                data: msi.data,
                ..Default::default()
            })
            .map(|delivered| delivered > 0)
            .map_err(|e| {
                Error::call(
                    format!(
                        "raise the MSI with address {:#x} and data {:#x}",
                        msi.address, msi.data
                    ),
                    e,
                )
            })
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
        if let Err(error) = self.0.signal_msi(message) {
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

    fn inject_nmi(&self, vp: VpIndex) -> Result<(), Error> {
        let Some(target) = self.0.vps.get(vp.0 as usize) else {
            return Err(Error::InvalidRequest(format!("there is no {vp}")));
        };
        // KVM_NMI would wait until the VP leaves the guest; a message does not.
        let destination = u64::from(target.topology.apic_id);
        let delivered = self.0.signal_msi(MsiMessage {
            address: MSI_ADDRESS | (destination & 0xff) << 12 | (destination >> 8) << 40,
            data: MSI_DELIVER_NMI,
        })?;
        if delivered {
            Ok(())
        } else {
            Err(Error::InvalidRequest(format!(
                "{vp} takes no NMI: its local APIC is disabled"
            )))
        }
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
        let c = &self.0.capabilities;
        serde_json::json!({
            "irqchip": match self.0.irqchip {
                IrqchipMode::Kernel => "kernel",
                IrqchipMode::Split => "split",
            },
            "capabilities": {
                "exception_payload": c.exception_payload,
                "triple_fault_event": c.triple_fault_event,
                "emulation_failure_exit": c.emulation_failure_exit,
                "user_space_msr": c.user_space_msr,
                "x2apic_api": c.x2apic_api,
                "readonly_memory": c.readonly_memory,
                "sregs2": c.sregs2,
                "tsc_deadline_timer": c.tsc_deadline_timer,
                "tsc_control": c.tsc_control,
                "tsc_offset": c.tsc_offset,
                "xsave_size": c.xsave_size,
                "max_routes": c.max_routes,
                "max_slots": c.max_slots,
            },
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
