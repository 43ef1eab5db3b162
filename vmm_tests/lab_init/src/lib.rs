//! What the two ends of the lab say to each other: the job that `cargo xtask lab` leaves in the lab's
//! initramfs, and the report that the lab's init sends back over a virtio-serial port.
#![forbid(unsafe_code)]

mod job;
mod report;
pub mod stdin;

pub use job::JOB_PATH;
pub use job::Job;
pub use job::Module;
pub use job::WORK_DIR;
pub use job::port;
pub use report::OutFile;
pub use report::Report;
