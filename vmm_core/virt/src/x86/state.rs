//! Saved state of a partition and its VPs.
//!
//! Field numbers are part of the format of saved state: they are never changed or used again.

use crate::x86::Registers;

/// The whole state of a VP.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct VpState {
    /// General, control and segment registers.
    #[n(0)]
    pub registers: Registers,
    /// The CPUID table as the guest saw it.
    #[n(1)]
    pub cpuid: Vec<CpuidEntry>,
    /// Whether the VP executes, halts or waits to be started.
    #[n(2)]
    pub activity: Activity,
    /// Pending and injected exceptions and interrupts.
    #[n(3)]
    pub events: Events,
    /// The page-directory-pointer table registers of PAE paging (SDM volume 3, 4.4.1), where the processor
    /// has them loaded.
    #[n(4)]
    pub pdptrs: Option<[u64; 4]>,
    /// XCR0: the register sets that XSAVE covers.
    #[n(5)]
    pub xcr0: u64,
    /// The XSAVE area in the standard (not compacted) format, SDM volume 1, 13.4.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub xsave: Vec<u8>,
    /// Model-specific registers, in the order of writing.
    #[n(7)]
    pub msrs: Vec<Msr>,
    /// The time stamp counter.
    #[n(8)]
    pub tsc: Tsc,
    /// The local APIC's registers as in its page (SDM volume 3, table 12-1): 1024 bytes.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub lapic: Vec<u8>,
    /// Debug registers.
    #[n(10)]
    pub debug: DebugRegisters,
    /// The state of the guest's own guests, in the format of [`nested`](crate::x86::nested). Empty where the guest has no
    /// nested virtualization.
    #[cbor(n(11), with = "minicbor::bytes", default)]
    pub nested: Vec<u8>,
    /// SSP, the shadow stack's pointer (SDM volume 1, 18.1); `None` where the guest has no shadow stacks.
    #[n(12)]
    pub ssp: Option<u64>,
}

/// One entry of a CPUID table.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
#[allow(missing_docs, reason = "the registers' architectural names say it all")]
pub struct CpuidEntry {
    /// The leaf: EAX on input.
    #[n(0)]
    pub leaf: u32,
    /// The subleaf: ECX on input; `None` where the leaf has no subleaves.
    #[n(1)]
    pub subleaf: Option<u32>,
    #[n(2)]
    pub eax: u32,
    #[n(3)]
    pub ebx: u32,
    #[n(4)]
    pub ecx: u32,
    #[n(5)]
    pub edx: u32,
}

/// A VP's activity.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    #[n(0)]
    Running,
    /// Waiting for INIT.
    #[n(1)]
    WaitForInit,
    /// INIT came; waiting for SIPI.
    #[n(2)]
    WaitForSipi,
    /// Halted until an interrupt.
    #[n(3)]
    Halted,
    /// SIPI came and was not handled yet.
    #[n(4)]
    SipiReceived,
}

/// Pending and injected exceptions and interrupts.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Events {
    /// An exception.
    #[n(0)]
    pub exception: Option<Exception>,
    /// An interrupt already taken from the local APIC.
    #[n(1)]
    pub interrupt: Option<Interrupt>,
    /// `sti` or `mov ss` holds interrupts back for one instruction (bit 0: `sti`, bit 1: `mov ss`).
    #[n(2)]
    pub interrupt_shadow: u8,
    /// An NMI is being delivered.
    #[n(3)]
    pub nmi_injected: bool,
    /// Pending NMIs.
    #[n(4)]
    pub nmi_pending: u8,
    /// NMIs are held back until `iret`.
    #[n(5)]
    pub nmi_masked: bool,
    /// System management mode.
    #[n(6)]
    pub smi: Option<Smi>,
    /// A triple fault that was not handled yet.
    #[n(7)]
    pub triple_fault_pending: bool,
}

/// A pending or injected exception.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Exception {
    /// The vector, 0 to 31.
    #[n(0)]
    pub vector: u8,
    /// The error code, for the exceptions that have one.
    #[n(1)]
    pub error_code: Option<u32>,
    /// Whether delivery has begun: CR2 and DR6 have their new values.
    #[n(2)]
    pub injected: bool,
    /// The value for CR2 or DR6, until delivery begins.
    #[n(3)]
    pub payload: Option<u64>,
}

/// An interrupt that was taken from the local APIC and is being injected.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Interrupt {
    /// The vector.
    #[n(0)]
    pub vector: u8,
    /// Whether an `int` instruction made it.
    #[n(1)]
    pub software: bool,
}

/// System management mode.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Smi {
    /// The VP is in the mode.
    #[n(0)]
    pub active: bool,
    /// An SMI is pending.
    #[n(1)]
    pub pending: bool,
    /// The mode was entered while NMIs were masked.
    #[n(2)]
    pub inside_nmi: bool,
    /// An INIT is pending until the mode is left.
    #[n(3)]
    pub latched_init: bool,
}

/// A model-specific register.
#[derive(Debug, Copy, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Msr {
    /// Its number.
    #[n(0)]
    pub index: u32,
    /// Its value.
    #[n(1)]
    pub value: u64,
}

/// A time stamp counter.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Tsc {
    /// Its value when the partition's clock was stopped. VPs whose counters agree have the same value here.
    #[n(0)]
    pub value: u64,
    /// Its frequency, in kHz.
    #[n(1)]
    pub khz: u32,
}

/// Debug registers.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct DebugRegisters {
    /// DR0 to DR3: breakpoint addresses.
    #[n(0)]
    pub addresses: [u64; 4],
    /// DR6: status.
    #[n(1)]
    pub dr6: u64,
    /// DR7: control.
    #[n(2)]
    pub dr7: u64,
}

/// Partition-wide state.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct PartitionState {
    /// The guest's paravirtual clock, in nanoseconds.
    #[n(0)]
    pub clock_ns: u64,
    /// The hypervisor's PICs, IOAPIC and PIT; `None` where it has none.
    #[n(1)]
    pub irqchip: Option<Irqchip>,
}

/// The interrupt controllers of the PC, and its timer.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Irqchip {
    /// The 8259A that the processor sees.
    #[n(0)]
    pub primary_pic: Pic,
    /// The 8259A on the primary's input 2.
    #[n(1)]
    pub secondary_pic: Pic,
    /// The IOAPIC.
    #[n(2)]
    pub ioapic: Ioapic,
    /// The 8254.
    #[n(3)]
    pub pit: Pit,
}

/// An 8259A interrupt controller; the names are the data sheet's.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Pic {
    /// Levels of the inputs when last sampled, for edge detection.
    #[n(0)]
    pub last_irr: u8,
    /// Interrupt request register.
    #[n(1)]
    pub irr: u8,
    /// Interrupt mask register.
    #[n(2)]
    pub imr: u8,
    /// In-service register.
    #[n(3)]
    pub isr: u8,
    /// The input with the highest priority.
    #[n(4)]
    pub priority_add: u8,
    /// The vector of input 0.
    #[n(5)]
    pub irq_base: u8,
    /// Whether the next read gives ISR (1) or IRR (0).
    #[n(6)]
    pub read_reg_select: u8,
    /// The next read is a poll.
    #[n(7)]
    pub poll: u8,
    /// Special mask mode.
    #[n(8)]
    pub special_mask: u8,
    /// Which initialization command word is awaited.
    #[n(9)]
    pub init_state: u8,
    /// Automatic end of interrupt.
    #[n(10)]
    pub auto_eoi: u8,
    /// Rotation of priorities on automatic end of interrupt.
    #[n(11)]
    pub rotate_on_auto_eoi: u8,
    /// Special fully nested mode.
    #[n(12)]
    pub special_fully_nested_mode: u8,
    /// Initialization takes four words.
    #[n(13)]
    pub init4: u8,
    /// Edge/level control register.
    #[n(14)]
    pub elcr: u8,
    /// The bits of ELCR that can be set.
    #[n(15)]
    pub elcr_mask: u8,
}

/// An 82093AA interrupt controller.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Ioapic {
    /// Where its registers are.
    #[n(0)]
    pub base_address: u64,
    /// The register selected.
    #[n(1)]
    pub ioregsel: u32,
    /// Its id.
    #[n(2)]
    pub id: u32,
    /// Levels of the inputs.
    #[n(3)]
    pub irr: u32,
    /// The redirection table.
    #[n(4)]
    pub redirection: [u64; 24],
}

/// An 8254 timer.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Pit {
    /// Its three counters.
    #[n(0)]
    pub channels: [PitChannel; 3],
    /// The speaker gate's state and the hypervisor's other flags.
    #[n(1)]
    pub flags: u32,
}

/// A counter of an 8254 timer; the names are the data sheet's.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
#[allow(missing_docs, reason = "the data sheet's names say it all")]
pub struct PitChannel {
    #[n(0)]
    pub count: u32,
    #[n(1)]
    pub latched_count: u16,
    #[n(2)]
    pub count_latched: u8,
    #[n(3)]
    pub status_latched: u8,
    #[n(4)]
    pub status: u8,
    #[n(5)]
    pub read_state: u8,
    #[n(6)]
    pub write_state: u8,
    #[n(7)]
    pub write_latch: u8,
    #[n(8)]
    pub rw_mode: u8,
    #[n(9)]
    pub mode: u8,
    #[n(10)]
    pub bcd: u8,
    #[n(11)]
    pub gate: u8,
    /// How long ago the count was loaded, in nanoseconds.
    #[n(12)]
    pub age_ns: u64,
}
