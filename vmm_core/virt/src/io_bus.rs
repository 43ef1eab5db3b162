use crate::VpIndex;

/// Handles guest accesses that the hypervisor does not. Called on VP threads, concurrently.
pub trait IoBus: Send + Sync {
    /// A guest's `in`. Always fills `data` (1, 2 or 4 bytes).
    fn read_port(&self, port: u16, data: &mut [u8]);

    /// A guest's `out` of 1, 2 or 4 bytes.
    fn write_port(&self, port: u16, data: &[u8]);

    /// A guest's read of memory that is not RAM. Always fills `data` (1 to 8 bytes).
    fn read_mmio(&self, gpa: u64, data: &mut [u8]);

    /// A guest's write of 1 to 8 bytes to memory that is not writable RAM.
    fn write_mmio(&self, gpa: u64, data: &[u8]);

    /// The guest ended interrupt `vector` on a level-triggered pin of the VMM's IOAPIC.
    fn end_of_interrupt(&self, vector: u8);

    /// A guest's `rdmsr` of an intercepted or unknown MSR. `None` raises #GP.
    fn read_msr(&self, vp: VpIndex, index: u32) -> Option<u64>;

    /// A guest's `wrmsr` of an intercepted or unknown MSR. `None` raises #GP.
    fn write_msr(&self, vp: VpIndex, index: u32, value: u64) -> Option<()>;
}
