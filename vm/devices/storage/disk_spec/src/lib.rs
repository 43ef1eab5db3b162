//! Disks as users write them down (`file:PATH,ro`, `mem:1G`, `memdiff:file:PATH`), and how those are opened.
#![forbid(unsafe_code)]

mod handle;
mod open;
mod parse;

pub use handle::VirtioBlkHandle;
pub use open::OpenError;
pub use parse::DiskSource;
pub use parse::DiskSpec;
pub use parse::ParseError;
