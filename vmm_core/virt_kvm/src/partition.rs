//! The partition: what the VPs and devices of one VM share.

use crate::capabilities::Capabilities;
use crate::capabilities::IOAPIC_PINS;
use crate::clock::Clock;
use crate::cpuid::build_cpuid;
use crate::irqchip;
use crate::routing::Routing;
use crate::slots::Slots;
use crate::state_table;
use crate::state_table::Row;
use crate::state_table::put;
use crate::system::System;
use crate::vp_shared::VpShared;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use guest_memory::GuestRegion;
use guest_memory::MemoryRange;
use kvm_ioctls::VmFd;
use log_limit::LogLimit;
use parking_lot::Mutex;
use std::sync::Arc;
use virt::Error;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::Partition;
use virt::ProcessorFeatures;
use virt::ProcessorIdentity;
use virt::Topology;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::Irqchip;
use virt::x86::Msr;
use virt::x86::PartitionState;

/// One VM. Its VPs, and the MSI vectors and doorbells of its devices, keep it alive.
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
    /// The interrupt controllers as KVM created them; `None` in split mode.
    pub(crate) initial_irqchip: Option<Irqchip>,
    /// A VP's MSRs as KVM created them, read by the first VP that is bound.
    pub(crate) initial_msrs: Mutex<Option<Arc<[Msr]>>>,
    pub(crate) vps: Vec<Arc<VpShared>>,
    pub(crate) lost_interrupts: LogLimit,
}

/// [`virt::Partition`] on KVM.
pub(crate) struct KvmPartition(pub(crate) Arc<Shared>);

type PartitionRow = Row<Shared, PartitionState>;

/// The paravirtual clock. It goes on over a reset.
const CLOCK: PartitionRow = Row {
    name: "clock",
    read: |shared, state| {
        let clock = shared.clock.lock();
        put(&mut state.clock_ns, clock.nanoseconds(&shared.vm)?)
    },
    write: |shared, state| {
        shared.clock.lock().restore(state.clock_ns);
        Ok(())
    },
    ..Row::EMPTY
};

const IRQCHIP: PartitionRow = Row {
    name: "interrupt controllers",
    exists: |shared| shared.initial_irqchip.is_some(),
    check: |shared, state| match (&shared.initial_irqchip, &state.irqchip) {
        (Some(_), None) => Err(Error::InvalidRequest(
            "the saved state lacks the interrupt controllers".to_string(),
        )),
        (None, Some(_)) => Err(Error::InvalidRequest(
            "the saved state has interrupt controllers that this partition lacks".to_string(),
        )),
        _ => Ok(()),
    },
    read: |shared, state| put(&mut state.irqchip, Some(irqchip::save(&shared.vm)?)),
    write: |shared, state| match &state.irqchip {
        Some(chips) => irqchip::restore(&shared.vm, chips),
        None => Ok(()),
    },
    reset: |shared, state| put(&mut state.irqchip, shared.initial_irqchip),
};

impl Shared {
    /// The CPUID table of `vp`.
    pub(crate) fn cpuid(&self, vp: VpTopology) -> Result<Vec<CpuidEntry>, Error> {
        Ok(build_cpuid(
            self.system.supported_cpuid()?,
            &self.topology,
            vp,
            &self.capabilities,
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
        if let Err(error) = self.0.set_line(gsi, high)
            && let Some(suppressed) = self.0.lost_interrupts.allow()
        {
            let error = &error as &dyn std::error::Error;
            tracing::error!(gsi, high, error, suppressed, "an interrupt is lost");
        }
    }
}

impl Partition for KvmPartition {
    fn map(&self, region: GuestRegion, access: MappingAccess) -> Result<(), Error> {
        self.0.slots.map(&self.0.vm, region, access)
    }

    fn unmap(&self, range: MemoryRange) -> Result<(), Error> {
        self.0.slots.unmap(&self.0.vm, range)
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

    fn processor(&self) -> Result<ProcessorIdentity, Error> {
        let Some(bsp) = self.0.vps.first() else {
            return Ok(ProcessorIdentity::default());
        };
        let cpuid = self.0.cpuid(bsp.topology)?;
        let leaf = cpuid.iter().find(|entry| entry.leaf == 1);
        let tsc_khz = bsp.vcpu.get_tsc_khz();
        Ok(ProcessorIdentity {
            signature: leaf.map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax)),
            tsc_khz: tsc_khz.map_err(|e| Error::call("read the TSC frequency", e))?,
        })
    }

    fn stop_clock(&self) -> Result<(), Error> {
        self.0.clock.lock().stop(&self.0.vm, &self.0.vps)
    }

    fn start_clock(&self) -> Result<(), Error> {
        self.0.clock.lock().start(&self.0.vm, &self.0.vps)
    }

    fn reset(&self) -> Result<(), Error> {
        state_table::reset(&*self.0, &[&IRQCHIP])
    }

    fn save(&self) -> Result<PartitionState, Error> {
        state_table::save(&*self.0, &[&CLOCK, &IRQCHIP])
    }

    fn restore(&self, state: &PartitionState) -> Result<(), Error> {
        state_table::restore(&*self.0, state, &[&IRQCHIP, &CLOCK])
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
