//! `cargo xtask lab`: runs a command on a machine with KVM and nested virtualization, on any host.
//!
//! QEMU emulates a machine with an SVM processor in software. It boots Debian's kernel with an initramfs made for this
//! run, runs one command, and ends.

mod args;
mod host_program;
mod initrd;
mod job;
mod machine;
mod streams;
mod watchdog;

pub(crate) use args::LabArgs;
pub(crate) use args::run;
pub(crate) use initrd::DISK;
pub(crate) use initrd::GUEST_DIR;
pub(crate) use job::Lab;
pub(crate) use job::OutFile;
pub(crate) use machine::LabEnd;
pub(crate) use machine::LabParts;
pub(crate) use machine::LabStreams;
pub(crate) use machine::boot;
