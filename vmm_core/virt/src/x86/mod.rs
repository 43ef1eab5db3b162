//! x86-64 state, in the processor's own terms.

pub mod nested;
mod registers;
pub mod reset;
mod state;

pub use registers::Registers;
pub use registers::SegmentRegister;
pub use registers::TableRegister;
pub use state::Activity;
pub use state::CpuidEntry;
pub use state::DebugRegisters;
pub use state::Events;
pub use state::Exception;
pub use state::Interrupt;
pub use state::Ioapic;
pub use state::Irqchip;
pub use state::Msr;
pub use state::PartitionState;
pub use state::Pic;
pub use state::Pit;
pub use state::PitChannel;
pub use state::Smi;
pub use state::Tsc;
pub use state::VpState;
