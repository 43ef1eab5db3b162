//! `/dev/kvm`: what the host offers, and making partitions.

use crate::capabilities;
use crate::clock::Clock;
use crate::cpuid;
use crate::ioctl;
use crate::irqchip;
use crate::kick::Kick;
use crate::msr_filter;
use crate::partition::KvmPartition;
use crate::partition::Shared;
use crate::partition::VpShared;
use crate::routing::Routing;
use crate::run_page::RunPage;
use crate::slots::Slots;
use crate::vp::KvmVpBinder;
use kvm_bindings::*;
use kvm_ioctls::Kvm;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::mpsc;
use virt::Error;
use virt::HostInfo;
use virt::HostKind;
use virt::Hypervisor;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::NewPartition;
use virt::PartitionConfig;
use virt::VpBinder;
use virt::x86::CpuidEntry;

const DEVICE: &str = "/dev/kvm";
const API_VERSION: i32 = 12;

/// Three pages and one page that KVM on Intel processors without unrestricted guests puts into the
/// guest-physical address space: below what firmware images take, above the local APIC.
const TSS_ADDRESS: usize = 0xfeff_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;

/// Machine-check banks of a VP, as many as common processors have.
const MCE_BANKS: u64 = 10;
/// MCG_CAP: the banks have a common control register.
const MCG_CTL_P: u64 = 1 << 8;

/// The host's KVM.
pub struct KvmHypervisor {
    system: Arc<System>,
}

/// `/dev/kvm`, and what it said when first asked.
pub(crate) struct System {
    pub(crate) kvm: Kvm,
    kind: HostKind,
    supported_cpuid: OnceLock<Vec<CpuidEntry>>,
    mcg_cap: OnceLock<u64>,
    /// The first VM, if it is being made already.
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

impl KvmHypervisor {
    /// Opens `/dev/kvm`.
    pub fn open() -> Result<Self, Error> {
        let system = Arc::new(System::open(None)?);
        Ok(Self { system })
    }
}

/// A VM in the making while it is still to be found out what it shall be.
///
/// Making one is the longest step of a start on the kernel's side, and depends on nothing that a user can choose.
pub struct HeadStart(Option<mpsc::Receiver<Result<Arc<System>, Error>>>);

impl HeadStart {
    /// Begins, on a thread of its own. If nothing comes of it the VM goes with the process.
    pub fn begin() -> Self {
        let (send, opened) = mpsc::channel();
        let begun = std::thread::Builder::new()
            .name("kvm-head-start".into())
            .spawn(move || {
                let (send_vm, vm) = mpsc::channel();
                let system = System::open(Some(vm)).map(Arc::new);
                let kept = system.as_ref().ok().cloned();
                // Whoever does not wait any more needs no VM.
                if send.send(system).is_ok()
                    && let Some(system) = kept
                {
                    let _ = send_vm.send(system.make_vm());
                }
            });
        Self(begun.is_ok().then_some(opened))
    }

    /// As [`KvmHypervisor::open`]; the first partition is the one begun.
    pub fn finish(self) -> Result<KvmHypervisor, Error> {
        match self.0.and_then(|opened| opened.recv().ok()) {
            Some(system) => Ok(KvmHypervisor { system: system? }),
            None => KvmHypervisor::open(),
        }
    }
}

impl System {
    fn open(head_start: Option<mpsc::Receiver<Result<VmFd, Error>>>) -> Result<Self, Error> {
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

    /// What a VP's MCG_CAP says; zero where KVM has no machine checks.
    pub(crate) fn mcg_cap(&self) -> u64 {
        *self.mcg_cap.get_or_init(|| {
            ioctl::mce_capabilities(&self.kvm).map_or(0, |supported| {
                (supported & 0xff).min(MCE_BANKS) | supported & MCG_CTL_P
            })
        })
    }

    /// The VM with a head start, or a new one.
    fn create_vm(&self) -> Result<VmFd, Error> {
        let head_start = self.head_start.lock().take();
        match head_start.and_then(|vm| vm.recv().ok()) {
            Some(vm) => vm,
            None => self.make_vm(),
        }
    }

    fn make_vm(&self) -> Result<VmFd, Error> {
        loop {
            match self.kvm.create_vm() {
                Ok(vm) => return Ok(vm),
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(Error::call("create a VM", e)),
            }
        }
    }
}

impl Hypervisor for KvmHypervisor {
    fn host_info(&self) -> Result<HostInfo, Error> {
        let kvm = &self.system.kvm;
        Ok(HostInfo {
            kind: self.system.kind,
            address_bits: cpuid::address_bits(self.system.supported_cpuid()?),
            nested: kvm.check_extension_raw(KVM_CAP_NESTED_STATE.into()) > 0,
        })
    }

    fn new_partition(&self, config: PartitionConfig<'_>) -> Result<NewPartition, Error> {
        let system = &self.system;
        if config.processor.nested && !self.host_info()?.nested {
            return Err(Error::MissingCapability {
                what: "KVM_CAP_NESTED_STATE",
            });
        }
        let vm = system.create_vm()?;
        let capabilities = capabilities::enable_capabilities(&vm, system.kind, config.irqchip)?;
        let intercepts = config.processor.msr_intercepts();
        if !intercepts.is_empty() && !capabilities.user_space_msr {
            return Err(Error::MissingCapability {
                what: "KVM_CAP_X86_USER_SPACE_MSR",
            });
        }
        msr_filter::install(&vm, &intercepts)?;
        if matches!(system.kind, HostKind::Vmx | HostKind::Unknown) {
            vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
                .map_err(|e| Error::call("place the identity map page", e))?;
            vm.set_tss_address(TSS_ADDRESS)
                .map_err(|e| Error::call("place the TSS pages", e))?;
        }
        let routing = Routing::new(config.irqchip, capabilities.max_routes);
        let initial_irqchip = match config.irqchip {
            IrqchipMode::Kernel => {
                create_irqchip(&vm)?;
                routing.commit(&vm)?;
                Some(irqchip::save(&vm)?)
            }
            IrqchipMode::Split => None,
        };
        let topology = config.topology;
        match topology.vps().first() {
            Some(bsp) if bsp.apic_id != 0 => ioctl::set_boot_cpu_id(&vm, bsp.apic_id)
                .map_err(|e| Error::call("choose the boot processor", e))?,
            _ => {}
        }
        let slots = Slots::new(capabilities.max_slots, capabilities.readonly_memory);
        for region in config.memory.regions() {
            slots.map(&vm, region.clone(), MappingAccess::ReadWrite)?;
        }
        let mut pages = Vec::with_capacity(topology.vps().len());
        let mut vps = Vec::with_capacity(topology.vps().len());
        // In index order: KVM numbers its vCPUs by it.
        for &vp in topology.vps() {
            let vcpu = vm
                .create_vcpu(vp.apic_id.into())
                .map_err(|e| Error::call(format!("create {}", vp.index), e))?;
            let page = RunPage::new(vcpu, vm.run_size());
            vps.push(Arc::new(VpShared {
                topology: vp,
                vcpu: page.vcpu().clone(),
                kick: Arc::new(Kick::default()),
                stopped_tsc: Mutex::new(None),
            }));
            pages.push(page);
        }
        let shared = Arc::new(Shared {
            vm,
            system: system.clone(),
            capabilities,
            irqchip: config.irqchip,
            processor: config.processor,
            slots,
            routing,
            clock: Mutex::new(Clock::new(capabilities.tsc_offset)),
            topology: topology.clone(),
            initial_irqchip,
            initial_msrs: Mutex::new(None),
            vps,
        });
        let binders = pages.into_iter().zip(&shared.vps).map(|(page, vp)| {
            Box::new(KvmVpBinder {
                partition: shared.clone(),
                shared: vp.clone(),
                page,
            }) as Box<dyn VpBinder>
        });
        Ok(NewPartition {
            vps: binders.collect(),
            partition: Arc::new(KvmPartition(shared.clone())),
        })
    }
}

fn create_irqchip(vm: &VmFd) -> Result<(), Error> {
    vm.create_irq_chip()
        .map_err(|e| Error::call("create the interrupt controllers", e))?;
    // The port of the PC speaker is in the kernel too, next to the timer channel it belongs to.
    vm.create_pit2(kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    })
    .map_err(|e| Error::call("create the PIT", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_open_say_what_to_do() {
        let error = |errno| open_error(kvm_ioctls::Error::new(errno));
        assert!(matches!(error(libc::ENOENT), Error::Unavailable { .. }));
        assert!(error(libc::ENODEV).to_string().contains("kvm_intel"));
        assert!(matches!(error(libc::EACCES), Error::NotPermitted { .. }));
        assert!(error(libc::EACCES).to_string().contains("group kvm"));
        assert!(matches!(error(libc::EMFILE), Error::Call { .. }));
    }
}
