//! Parses and opens disks as users specify them (`file:PATH,ro`, `mem:1G`, `memdiff:file:PATH`).
#![forbid(unsafe_code)]

mod handle;
mod medium;
mod open;
mod parse;

pub use handle::VirtioBlkHandle;
pub use medium::ExamineError;
pub use medium::examine;
pub use open::DiskOpenError;
pub use parse::DiskSource;
pub use parse::DiskSpec;
pub use parse::ParseError;
