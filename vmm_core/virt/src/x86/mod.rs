//! x86-64 state, in the processor's own terms.

mod registers;
mod state;

pub use registers::Registers;
pub use registers::Segment;
pub use registers::TableRegister;
pub use state::PartitionState;
pub use state::VpState;
