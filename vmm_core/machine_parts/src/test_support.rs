//! What the tests of several files need.

use virt::IoBus;
use virt::VpIndex;

/// A bus without devices.
pub(crate) struct NoBus;

impl IoBus for NoBus {
    fn read_port(&self, _: u16, _: &mut [u8]) {}
    fn write_port(&self, _: u16, _: &[u8]) {}
    fn read_mmio(&self, _: u64, _: &mut [u8]) {}
    fn write_mmio(&self, _: u64, _: &[u8]) {}
    fn end_of_interrupt(&self, _: u8) {}
    fn read_msr(&self, _: VpIndex, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _: VpIndex, _: u32, _: u64) -> Option<()> {
        None
    }
}
