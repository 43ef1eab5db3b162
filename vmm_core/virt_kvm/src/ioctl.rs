//! The calls to KVM that `kvm-ioctls` does not offer, or not as they are needed here.
#![allow(
    unsafe_code,
    reason = "ioctls take pointers; each call here passes one of the type its number asks for"
)]

use kvm_bindings::*;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use vm_memory::GuestMemoryRegion as _;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl::ioctl_with_mut_ptr;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl::ioctl_with_ptr;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;
use vmm_sys_util::ioctl_ior_nr;
use vmm_sys_util::ioctl_iow_nr;
use vmm_sys_util::ioctl_iowr_nr;

ioctl_io_nr!(KVM_SET_BOOT_CPU_ID, KVMIO, 0x78);
ioctl_iow_nr!(KVM_IRQFD, KVMIO, 0x76, kvm_irqfd);
ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);
ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
ioctl_io_nr!(KVM_GET_TSC_KHZ, KVMIO, 0xa3);
ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm_xsave);
ioctl_iowr_nr!(KVM_GET_NESTED_STATE, KVMIO, 0xbe, kvm_nested_state);
ioctl_iow_nr!(KVM_SET_NESTED_STATE, KVMIO, 0xbf, kvm_nested_state);
ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_SREGS2, KVMIO, 0xcd, kvm_sregs2);
ioctl_ior_nr!(KVM_GET_XSAVE2, KVMIO, 0xcf, kvm_xsave);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVMIO, 0xe3, kvm_device_attr);

/// The smallest buffer that the XSAVE calls may be given, in bytes.
pub(crate) const XSAVE_MIN_SIZE: usize = size_of::<kvm_xsave>();

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Enters the guest; the exit is in the run page.
pub(crate) fn run(vcpu: &VcpuFd) -> io::Result<()> {
    // SAFETY: the fd is a vCPU's, and KVM_RUN takes no argument.
    check(unsafe { ioctl(vcpu, KVM_RUN()) })
}

pub(crate) fn set_boot_cpu_id(vm: &VmFd, id: u32) -> io::Result<()> {
    // SAFETY: the fd is a VM's, and the argument is a number.
    check(unsafe { ioctl_with_val(vm, KVM_SET_BOOT_CPU_ID(), id.into()) })
}

/// The frequency of the time stamp counter of a VM's VPs; `None` where KVM does not tell (before Linux 5.18).
pub(crate) fn vm_tsc_khz(vm: &VmFd) -> Option<u32> {
    // SAFETY: the fd is a VM's, and the call takes no argument.
    let khz = unsafe { ioctl(vm, KVM_GET_TSC_KHZ()) };
    u32::try_from(khz).ok().filter(|khz| *khz != 0)
}

pub(crate) fn ioeventfd(vm: &VmFd, request: &kvm_ioeventfd) -> io::Result<()> {
    // SAFETY: the fd is a VM's, and the kernel only reads the struct.
    check(unsafe { ioctl_with_ref(vm, KVM_IOEVENTFD(), request) })
}

/// Connects `event` to interrupt `gsi`, or disconnects it.
pub(crate) fn irqfd(vm: &VmFd, event: BorrowedFd<'_>, gsi: u32, flags: u32) -> io::Result<()> {
    let request = kvm_irqfd {
        fd: event.as_raw_fd() as u32,
        gsi,
        flags,
        ..Default::default()
    };
    // SAFETY: the fd is a VM's, and the kernel only reads the struct.
    check(unsafe { ioctl_with_ref(vm, KVM_IRQFD(), &request) })
}

/// The machine-check features that the host's KVM can give, as in MCG_CAP.
pub(crate) fn mce_capabilities(kvm: &Kvm) -> io::Result<u64> {
    let mut capabilities = 0u64;
    // SAFETY: the fd is /dev/kvm, and the kernel writes a u64.
    check(unsafe { ioctl_with_mut_ref(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut capabilities) })?;
    Ok(capabilities)
}

pub(crate) fn setup_mce(vcpu: &VcpuFd, mcg_cap: u64) -> io::Result<()> {
    // SAFETY: the fd is a vCPU's, and the kernel reads a u64.
    check(unsafe { ioctl_with_ref(vcpu, KVM_X86_SETUP_MCE(), &mcg_cap) })
}

pub(crate) fn get_sregs2(vcpu: &VcpuFd) -> io::Result<kvm_sregs2> {
    let mut sregs = kvm_sregs2::default();
    // SAFETY: the fd is a vCPU's, and the kernel fills the struct.
    check(unsafe { ioctl_with_mut_ref(vcpu, KVM_GET_SREGS2(), &mut sregs) })?;
    Ok(sregs)
}

pub(crate) fn set_sregs2(vcpu: &VcpuFd, sregs: &kvm_sregs2) -> io::Result<()> {
    // SAFETY: the fd is a vCPU's, and the kernel only reads the struct.
    check(unsafe { ioctl_with_ref(vcpu, KVM_SET_SREGS2(), sregs) })
}

/// Reads the XSAVE area. `size` is what KVM_CAP_XSAVE2 says, never less than [`XSAVE_MIN_SIZE`].
pub(crate) fn get_xsave2(vcpu: &VcpuFd, size: usize) -> io::Result<Vec<u8>> {
    let mut area = vec![0u8; size.max(XSAVE_MIN_SIZE)];
    // SAFETY: the fd is a vCPU's, and the kernel writes no more than KVM_CAP_XSAVE2 bytes, byte by byte.
    check(unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_XSAVE2(), area.as_mut_ptr()) })?;
    Ok(area)
}

/// Writes the XSAVE area, which is padded with zeros to `size`: what KVM_CAP_XSAVE2 says.
pub(crate) fn set_xsave(vcpu: &VcpuFd, mut area: Vec<u8>, size: usize) -> io::Result<()> {
    area.resize(area.len().max(size).max(XSAVE_MIN_SIZE), 0);
    // SAFETY: the fd is a vCPU's, and the kernel reads no more than KVM_CAP_XSAVE2 bytes.
    check(unsafe { ioctl_with_ptr(vcpu, KVM_SET_XSAVE(), area.as_ptr()) })
}

/// Where a nested state says how long it is, in bytes: its header's `size`.
const NESTED_SIZE: std::ops::Range<usize> = 4..8;

/// Reads the nested state. `size` is what KVM_CAP_NESTED_STATE says: KVM may write more than the state that it reports.
pub(crate) fn get_nested_state(vcpu: &VcpuFd, size: usize) -> io::Result<Vec<u8>> {
    let mut state = vec![0u8; size.max(size_of::<kvm_nested_state>())];
    let capacity = state.len() as u32;
    state[NESTED_SIZE].copy_from_slice(&capacity.to_ne_bytes());
    // SAFETY: the fd is a vCPU's, and the kernel writes, byte by byte, no more than the header says there is room for, and
    // never more than KVM_CAP_NESTED_STATE.
    check(unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_NESTED_STATE(), state.as_mut_ptr()) })?;
    let size = std::array::from_fn(|n| state[NESTED_SIZE.start + n]);
    state.truncate(u32::from_ne_bytes(size) as usize);
    Ok(state)
}

/// Writes the nested state, whose header tells its size.
pub(crate) fn set_nested_state(vcpu: &VcpuFd, state: &[u8]) -> io::Result<()> {
    let header = state.get(NESTED_SIZE).and_then(|size| size.first_chunk());
    let size = header.map_or(0, |size| u32::from_ne_bytes(*size) as usize);
    if state.len() < size_of::<kvm_nested_state>() || state.len() < size {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the fd is a vCPU's, and the kernel reads a header and no more than that says, which is in `state`.
    let result = unsafe { ioctl_with_ptr(vcpu, KVM_SET_NESTED_STATE(), state.as_ptr()) };
    check(result)?;
    // VMX: the processor's reason why the guest's guest cannot be entered. There is no `errno` then.
    match result {
        0 => Ok(()),
        reason => Err(io::Error::other(format!(
            "the guest's guest cannot be entered, reason {reason}"
        ))),
    }
}

/// SSP, the pointer of the shadow stack: KVM_X86_REG_KVM(KVM_REG_GUEST_SSP), 64 bits (Linux 6.18).
const REG_GUEST_SSP: u64 = 0x2030_0003_0000_0000;

pub(crate) fn get_ssp(vcpu: &VcpuFd) -> io::Result<u64> {
    let mut ssp = [0; 8];
    vcpu.get_one_reg(REG_GUEST_SSP, &mut ssp)?;
    Ok(u64::from_ne_bytes(ssp))
}

pub(crate) fn set_ssp(vcpu: &VcpuFd, ssp: u64) -> io::Result<()> {
    vcpu.set_one_reg(REG_GUEST_SSP, &ssp.to_ne_bytes())?;
    Ok(())
}

fn tsc_offset_attribute(value: *const u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: value as u64,
    }
}

/// Whether a vCPU's TSC offset can be read and written.
pub(crate) fn has_tsc_offset(vcpu: &VcpuFd) -> bool {
    let attribute = tsc_offset_attribute(std::ptr::null());
    // SAFETY: the fd is a vCPU's, and the kernel only reads the struct; it does not follow `addr`.
    check(unsafe { ioctl_with_ref(vcpu, KVM_HAS_DEVICE_ATTR(), &attribute) }).is_ok()
}

pub(crate) fn get_tsc_offset(vcpu: &VcpuFd) -> io::Result<u64> {
    let mut offset = 0u64;
    let attribute = tsc_offset_attribute(&raw mut offset);
    // SAFETY: the fd is a vCPU's, and the kernel writes a u64 where `addr` points: to `offset`, which
    // outlives the call.
    check(unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) })?;
    Ok(offset)
}

pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> io::Result<()> {
    let attribute = tsc_offset_attribute(&raw const offset);
    // SAFETY: the fd is a vCPU's, and the kernel reads a u64 from where `addr` points: from `offset`,
    // which outlives the call.
    check(unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) })
}

/// Makes `region` memory slot `slot`. The caller keeps the region mapped until the slot is cleared.
pub(crate) fn set_slot(
    vm: &VmFd,
    slot: u32,
    flags: u32,
    region: &guest_memory::GuestRegion,
) -> io::Result<()> {
    let request = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: the address and length are those of a whole mapping, which nothing in this process uses but
    // as guest memory.
    Ok(unsafe { vm.set_user_memory_region(request) }?)
}

/// Removes memory slot `slot`.
pub(crate) fn clear_slot(vm: &VmFd, slot: u32) -> io::Result<()> {
    let request = kvm_userspace_memory_region {
        slot,
        ..Default::default()
    };
    // SAFETY: a length of zero removes the slot; no memory is named.
    Ok(unsafe { vm.set_user_memory_region(request) }?)
}
