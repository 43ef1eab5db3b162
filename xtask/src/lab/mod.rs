//! `cargo xtask lab`: runs a command on a machine with KVM and nested virtualization, on any host.
//!
//! The machine is QEMU emulating an SVM processor in software. It boots Debian's kernel with an
//! initramfs made for the occasion, runs one command, and ends.

mod args;
mod cpio;
mod host_program;
mod initrd;
mod job;
mod machine;
mod streams;

pub(crate) use args::LabArgs;
pub(crate) use args::run;
pub(crate) use cpio::Archive;
pub(crate) use initrd::GUEST_DIR;
pub(crate) use initrd::add_userland;
pub(crate) use job::Lab;
pub(crate) use job::OutFile;
pub(crate) use machine::Ended;
pub(crate) use machine::Parts;
pub(crate) use machine::Streams;
pub(crate) use machine::boot;
