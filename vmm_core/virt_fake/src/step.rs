use virt::RunError;

/// One thing that a VP does while it runs.
#[derive(Debug)]
pub enum Step {
    /// `in` of 1, 2 or 4 bytes.
    ReadPort {
        /// The port.
        port: u16,
        /// Bytes.
        size: usize,
    },
    /// `out` of 1, 2 or 4 bytes.
    WritePort {
        /// The port.
        port: u16,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A read of 1 to 8 bytes of memory; MMIO where nothing is mapped.
    ReadMemory {
        /// The address.
        gpa: u64,
        /// Bytes.
        size: usize,
    },
    /// A write of memory; MMIO, of at most 8 bytes, where nothing writable is mapped.
    WriteMemory {
        /// The address.
        gpa: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// `rdmsr`.
    ReadMsr {
        /// The MSR.
        index: u32,
    },
    /// `wrmsr`.
    WriteMsr {
        /// The MSR.
        index: u32,
        /// The value.
        value: u64,
    },
    /// Ends a level-triggered interrupt of the VMM's IOAPIC.
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// Halts until the VP is kicked. The next run goes on with the next step.
    Halt,
    /// Shuts the VP down.
    TripleFault,
    /// Makes `run` fail.
    Fail(RunError),
}
