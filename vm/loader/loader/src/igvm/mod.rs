//! IGVM files: guests whose pages, parameters and VP registers are in one file, for a host that need not know what
//! they are.
//!
//! A file is planned as a whole before anything is imported: the platform is chosen, every page has RAM, no two
//! overlap, and the parameters that the file asks for have their values.

mod error;
mod image;
mod msvm;
mod parameters;
mod plan;
mod registers;

pub use error::IgvmLoadError;
pub use error::IgvmProblem;
pub use image::IgvmImage;
pub use plan::IgvmMachine;
pub use plan::IgvmPlan;
pub use registers::register_from_vsm;
