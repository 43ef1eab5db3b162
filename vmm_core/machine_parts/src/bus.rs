//! Guest accesses that the hypervisor hands over, on their way to the devices.

use chipset::ioapic::IoApicPins;
use std::sync::Arc;
use virt::IoBus;
use virt::ProcessorFeatures;
use virt::VpIndex;
use vmotherboard::Chipset;

/// The machine's bus.
pub struct MachineBus {
    chipset: Arc<Chipset>,
    /// The pins of the VMM's IOAPIC, where the hypervisor has none.
    ioapic: Option<IoApicPins>,
    processor: ProcessorFeatures,
}

impl MachineBus {
    /// Routes port and MMIO accesses to `chipset`, ends of interrupts to `ioapic`, and MSR accesses to the
    /// enlightenments of `processor`, with which the partition was made.
    pub fn new(
        chipset: Arc<Chipset>,
        ioapic: Option<IoApicPins>,
        processor: ProcessorFeatures,
    ) -> Self {
        Self {
            chipset,
            ioapic,
            processor,
        }
    }
}

impl IoBus for MachineBus {
    fn read_port(&self, port: u16, data: &mut [u8]) {
        self.chipset.read_port(port, data);
    }

    fn write_port(&self, port: u16, data: &[u8]) {
        self.chipset.write_port(port, data);
    }

    fn read_mmio(&self, gpa: u64, data: &mut [u8]) {
        self.chipset.read_mmio(gpa, data);
    }

    fn write_mmio(&self, gpa: u64, data: &[u8]) {
        self.chipset.write_mmio(gpa, data);
    }

    fn end_of_interrupt(&self, vector: u8) {
        if let Some(ioapic) = &self.ioapic {
            ioapic.eoi(vector);
        }
    }

    fn read_msr(&self, vp: VpIndex, index: u32) -> Option<u64> {
        if let Some(owner) = self.processor.msr_owner(index) {
            return owner.read_msr(vp, index);
        }
        tracing::debug!(
            vp = vp.0,
            index = format_args!("{index:#x}"),
            "read of an unknown MSR"
        );
        None
    }

    fn write_msr(&self, vp: VpIndex, index: u32, value: u64) -> Option<()> {
        if let Some(owner) = self.processor.msr_owner(index) {
            return owner.write_msr(vp, index, value);
        }
        tracing::debug!(
            vp = vp.0,
            index = format_args!("{index:#x}"),
            value = format_args!("{value:#x}"),
            "write of an unknown MSR"
        );
        None
    }
}
