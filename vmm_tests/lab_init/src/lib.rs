//! The protocol between `cargo xtask lab` and the lab's init: the job in the lab's initramfs, and the report that the init
//! sends over a virtio-serial port.
#![forbid(unsafe_code)]

mod job;
mod report;
pub mod stdin;

pub use job::JOB_PATH;
pub use job::LabJob;
pub use job::Module;
pub use job::WORK_DIR;
pub use job::port;
pub use report::LabReport;
pub use report::SentFile;
