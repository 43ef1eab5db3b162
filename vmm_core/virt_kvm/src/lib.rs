//! The KVM backend of `virt`: partitions, VPs, interrupts and state on `/dev/kvm` of an x86-64 Linux host.

mod activity;
mod capabilities;
mod clock;
mod cpuid;
mod doorbell;
mod exit;
mod fields;
mod hypervisor;
mod ioctl;
mod irqchip;
mod kick;
mod msi;
mod msr;
mod msr_filter;
mod nested;
mod partition;
mod registers;
mod routing;
mod run_page;
mod slots;
mod state_table;
mod system;
mod vp;
mod vp_shared;
mod vp_state;

pub use hypervisor::HeadStart;
pub use hypervisor::KvmHypervisor;
