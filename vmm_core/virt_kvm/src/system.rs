//! `/dev/kvm`, and what it says of the host.

use crate::cpuid;
use crate::ioctl;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc;
use virt::Error;
use virt::HostKind;
use virt::x86::CpuidEntry;

const DEVICE: &str = "/dev/kvm";
const API_VERSION: i32 = 12;

/// Machine-check banks of a VP, as many as common processors have.
const MCE_BANKS: u64 = 10;
/// MCG_CAP: the banks have a common control register.
const MCG_CTL_P: u64 = 1 << 8;

/// `/dev/kvm`, and its answers, which are asked for once.
pub(crate) struct System {
    pub(crate) kvm: Kvm,
    pub(crate) kind: HostKind,
    supported_cpuid: OnceLock<Vec<CpuidEntry>>,
    mcg_cap: OnceLock<u64>,
    /// The first VM, if it is being created already.
    head_start: Mutex<Option<mpsc::Receiver<Result<VmFd, Error>>>>,
}

fn host_kind() -> HostKind {
    let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
    // A hardware module that is built into the kernel is there even when it found no hardware.
    if loaded("kvm_pvm") {
        HostKind::Software
    } else if loaded("kvm_intel") {
        HostKind::Vmx
    } else if loaded("kvm_amd") {
        HostKind::Svm
    } else {
        HostKind::Unknown
    }
}

fn open_error(error: kvm_ioctls::Error) -> Error {
    match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::Unavailable {
            device: DEVICE,
            advice: "load the module kvm_intel or kvm_amd, and enable virtualization in the firmware's setup; \
                     on a machine without, `cargo xtask lab` runs VMs in an emulated one",
        },
        libc::EACCES | libc::EPERM => Error::NotPermitted {
            device: DEVICE,
            advice: "add the user to the group kvm (`sudo usermod -aG kvm $USER`) and log in again",
        },
        _ => Error::call(format!("open {DEVICE}"), error),
    }
}

impl System {
    pub(crate) fn open(
        head_start: Option<mpsc::Receiver<Result<VmFd, Error>>>,
    ) -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(open_error)?;
        if kvm.get_api_version() != API_VERSION {
            return Err(Error::MissingCapability {
                what: "version 12 of the KVM API",
            });
        }
        Ok(Self {
            kvm,
            kind: host_kind(),
            supported_cpuid: OnceLock::new(),
            mcg_cap: OnceLock::new(),
            head_start: Mutex::new(head_start),
        })
    }

    /// The CPUID leaves that KVM supports; the host is asked once.
    pub(crate) fn supported_cpuid(&self) -> Result<&[CpuidEntry], Error> {
        if let Some(entries) = self.supported_cpuid.get() {
            return Ok(entries);
        }
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| Error::call("ask KVM for the CPUID leaves it supports", e))?;
        Ok(self
            .supported_cpuid
            .get_or_init(|| cpuid.as_slice().iter().map(cpuid::entry).collect()))
    }

    /// MCG_CAP of a VP; zero where KVM has no machine checks.
    pub(crate) fn mcg_cap(&self) -> u64 {
        *self.mcg_cap.get_or_init(|| {
            ioctl::mce_capabilities(&self.kvm).map_or(0, |supported| {
                (supported & 0xff).min(MCE_BANKS) | supported & MCG_CTL_P
            })
        })
    }

    /// The VM that was begun, or a new one.
    pub(crate) fn create_vm(&self) -> Result<VmFd, Error> {
        let head_start = self.head_start.lock().take();
        match head_start.and_then(|vm| vm.recv().ok()) {
            Some(vm) => vm,
            None => self.make_vm(),
        }
    }

    /// The frequency of the time stamp counter of a VM's VPs; `None` where KVM does not tell.
    pub(crate) fn tsc_khz(&self) -> Result<Option<u32>, Error> {
        let vm = self.create_vm()?;
        let khz = ioctl::vm_tsc_khz(&vm);
        // The next partition uses it.
        let (send, made) = mpsc::channel();
        if send.send(Ok(vm)).is_ok() {
            *self.head_start.lock() = Some(made);
        }
        Ok(khz)
    }

    pub(crate) fn make_vm(&self) -> Result<VmFd, Error> {
        loop {
            match self.kvm.create_vm() {
                Ok(vm) => return Ok(vm),
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(Error::call("create a VM", e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_open_tell_the_user_what_to_do() {
        let error = |errno| open_error(kvm_ioctls::Error::new(errno));
        assert!(matches!(error(libc::ENOENT), Error::Unavailable { .. }));
        assert!(error(libc::ENODEV).to_string().contains("kvm_intel"));
        assert!(matches!(error(libc::EACCES), Error::NotPermitted { .. }));
        assert!(error(libc::EACCES).to_string().contains("group kvm"));
        assert!(matches!(error(libc::EMFILE), Error::Call { .. }));
    }
}
