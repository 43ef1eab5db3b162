//! Starts, stops, resets, saves and restores the stateful parts of a VM in dependency order.
//!
//! ```
//! use mesh::saved_state::{RestoreError, SaveError, SavedState};
//! use state_unit::{ResetError, StateUnit, StateUnits};
//!
//! struct Counter(u32);
//!
//! impl StateUnit for Counter {
//!     fn reset(&mut self) -> Result<(), ResetError> {
//!         self.0 = 0;
//!         Ok(())
//!     }
//!     fn save(&mut self) -> Result<SavedState, SaveError> {
//!         Ok(SavedState::encode(&self.0))
//!     }
//!     fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
//!         self.0 = state.decode()?;
//!         Ok(())
//!     }
//!     fn inspect(&self) -> serde_json::Value {
//!         self.0.into()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut builder = StateUnits::builder();
//! builder.add("vps", Counter(1)).depends_on("apic");
//! builder.add("apic", Counter(2));
//! let mut units = builder.build()?;
//! units.start()?;
//! units.stop();
//! let saved = units.save()?;
//! units.reset()?;
//! units.restore(&saved)?;
//! assert_eq!(units.inspect()["apic"], 2);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod builder;
mod error;
mod saved;
mod state;
mod unit;
mod units;

pub use builder::BuildUnitsError;
pub use builder::StateUnitsBuilder;
pub use builder::UnitBuilder;
pub use error::ResetUnitsError;
pub use error::RestoreUnitsError;
pub use error::SaveUnitsError;
pub use error::UnitErrors;
pub use error::UnitSaveError;
pub use error::UnitsOperation;
pub use error::WrongState;
pub use saved::DecodeUnitsError;
pub use saved::MAX_ENCODED_LEN;
pub use saved::MAX_NAME_LEN;
pub use saved::MAX_UNITS;
pub use saved::SavedUnit;
pub use saved::SavedUnits;
pub use state::UnitsState;
pub use unit::ResetError;
pub use unit::StateUnit;
pub use units::StateUnits;
