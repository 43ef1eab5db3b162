//! The page that KVM and the VMM share for each vCPU: KVM describes exits in it, the VMM completes them.
#![allow(
    unsafe_code,
    reason = "the page is a C union in memory that the kernel and a signal handler write to"
)]

use crate::ioctl;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// Why the VP left the guest.
#[derive(Debug, Copy, Clone)]
pub(crate) enum Exit {
    /// `in`, `out` or their string forms.
    Port(PortAccess),
    /// A read of memory that is not RAM.
    MmioRead {
        gpa: u64,
        len: usize,
    },
    /// A write to memory that is not RAM, or to a read-only slot.
    MmioWrite {
        gpa: u64,
        len: usize,
        data: [u8; 8],
    },
    ReadMsr {
        index: u32,
    },
    WriteMsr {
        index: u32,
        value: u64,
    },
    EndOfInterrupt {
        vector: u8,
    },
    Shutdown,
    FailEntry {
        reason: u64,
    },
    InternalError(InternalError),
    SystemEvent {
        kind: u32,
    },
    Other {
        reason: u32,
    },
}

/// A port access of `count` elements of `size` bytes, which lie at `offset` in the page's data area.
#[derive(Debug, Copy, Clone)]
pub(crate) struct PortAccess {
    pub(crate) port: u16,
    pub(crate) size: usize,
    pub(crate) count: usize,
    pub(crate) write: bool,
    offset: usize,
}

/// KVM_EXIT_INTERNAL_ERROR.
#[derive(Debug, Copy, Clone)]
pub(crate) struct InternalError {
    pub(crate) suberror: u32,
    pub(crate) count: usize,
    pub(crate) data: [u64; 16],
}

/// A vCPU and its run page. Only the thread that runs the vCPU uses it.
pub(crate) struct RunPage {
    vcpu: Arc<VcpuFd>,
    page: *mut kvm_run,
    size: usize,
}

// SAFETY: the pointer is to a mapping that `vcpu` keeps, which is not bound to a thread.
unsafe impl Send for RunPage {}

impl RunPage {
    /// `size` is that of the mapping.
    pub(crate) fn new(mut vcpu: VcpuFd, size: usize) -> Self {
        let page: *mut kvm_run = vcpu.get_kvm_run();
        Self {
            vcpu: Arc::new(vcpu),
            // The mapping came from the kernel, and is longer than the struct at its start.
            page: std::ptr::with_exposed_provenance_mut(page.expose_provenance()),
            size,
        }
    }

    pub(crate) fn vcpu(&self) -> &Arc<VcpuFd> {
        &self.vcpu
    }

    /// While nonzero, KVM_RUN completes the last exit and returns EINTR instead of entering the guest.
    pub(crate) fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the byte is in the mapping, which lives as long as `self`; the signal handler and the
        // kernel access it too, and nothing here does so but through this atomic.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.page).immediate_exit) }
    }

    pub(crate) fn set_immediate_exit(&self, on: bool) {
        self.immediate_exit().store(on.into(), Ordering::Relaxed);
    }

    /// Runs the guest until its next exit.
    pub(crate) fn run(&self) -> io::Result<Exit> {
        ioctl::run(&self.vcpu)?;
        Ok(self.exit())
    }

    fn exit(&self) -> Exit {
        // SAFETY: KVM_RUN has returned, so the kernel does not write to the page now, and it filled the
        // member of the union that belongs to the exit reason. All members are plain numbers.
        unsafe {
            let reason = (*self.page).exit_reason;
            let details = &raw const (*self.page).__bindgen_anon_1;
            match reason {
                KVM_EXIT_IO => {
                    let io = (*details).io;
                    Exit::Port(PortAccess {
                        port: io.port,
                        size: io.size.into(),
                        count: io.count as usize,
                        write: u32::from(io.direction) == KVM_EXIT_IO_OUT,
                        offset: io.data_offset as usize,
                    })
                }
                KVM_EXIT_MMIO => {
                    let mmio = (*details).mmio;
                    let (gpa, data) = (mmio.phys_addr, mmio.data);
                    let len = (mmio.len as usize).min(data.len());
                    match mmio.is_write {
                        0 => Exit::MmioRead { gpa, len },
                        _ => Exit::MmioWrite { gpa, len, data },
                    }
                }
                KVM_EXIT_X86_RDMSR => Exit::ReadMsr {
                    index: (*details).msr.index,
                },
                KVM_EXIT_X86_WRMSR => Exit::WriteMsr {
                    index: (*details).msr.index,
                    value: (*details).msr.data,
                },
                KVM_EXIT_IOAPIC_EOI => Exit::EndOfInterrupt {
                    vector: (*details).eoi.vector,
                },
                KVM_EXIT_SHUTDOWN => Exit::Shutdown,
                KVM_EXIT_FAIL_ENTRY => Exit::FailEntry {
                    reason: (*details).fail_entry.hardware_entry_failure_reason,
                },
                KVM_EXIT_INTERNAL_ERROR => {
                    let internal = (*details).internal;
                    Exit::InternalError(InternalError {
                        suberror: internal.suberror,
                        count: (internal.ndata as usize).min(internal.data.len()),
                        data: internal.data,
                    })
                }
                KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent {
                    kind: (*details).system_event.type_,
                },
                reason => Exit::Other { reason },
            }
        }
    }

    /// Where element `n` of a port access is, as long as it is in the mapping.
    fn element(&self, access: &PortAccess, n: usize) -> Option<*mut u8> {
        let start = access.offset.checked_add(n.checked_mul(access.size)?)?;
        let end = start.checked_add(access.size)?;
        // SAFETY: the element is in the mapping.
        (end <= self.size && access.size <= 4).then(|| unsafe { self.page.cast::<u8>().add(start) })
    }

    /// The bytes of element `n` of an `out`.
    pub(crate) fn port_element(&self, access: &PortAccess, n: usize) -> Option<[u8; 4]> {
        let element = self.element(access, n)?;
        let mut bytes = [0; 4];
        // SAFETY: `element` points to `size` bytes, at most 4, that the kernel does not write to now.
        unsafe { element.copy_to_nonoverlapping(bytes.as_mut_ptr(), access.size) };
        Some(bytes)
    }

    /// Answers element `n` of an `in`.
    pub(crate) fn set_port_element(&self, access: &PortAccess, n: usize, bytes: [u8; 4]) {
        if let Some(element) = self.element(access, n) {
            // SAFETY: as above.
            unsafe { element.copy_from_nonoverlapping(bytes.as_ptr(), access.size) };
        }
    }

    /// Answers an MMIO read. The exit in the page must be one.
    pub(crate) fn set_mmio_data(&self, data: [u8; 8]) {
        // SAFETY: the union's members are plain numbers, and the kernel does not access the page now.
        unsafe { (*self.page).__bindgen_anon_1.mmio.data = data };
    }

    /// Answers an MSR access: the value read, or zero for a write; `None` raises #GP. The exit in the
    /// page must be such an access.
    pub(crate) fn set_msr_result(&self, value: Option<u64>) {
        // SAFETY: as above.
        unsafe {
            let msr = &raw mut (*self.page).__bindgen_anon_1.msr;
            (*msr).error = value.is_none().into();
            (*msr).data = value.unwrap_or(0);
        }
    }
}
