//! Creating partitions on `/dev/kvm`.

use crate::capabilities;
use crate::capabilities::Capabilities;
use crate::clock::Clock;
use crate::cpuid;
use crate::ioctl;
use crate::irqchip;
use crate::kick::Kick;
use crate::msr_filter;
use crate::partition::KvmPartition;
use crate::partition::Shared;
use crate::routing;
use crate::routing::Routing;
use crate::run_page::RunPage;
use crate::slots::Slots;
use crate::system::System;
use crate::vp::KvmVpBinder;
use crate::vp_shared::VpShared;
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use log_limit::LogLimit;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc;
use virt::Error;
use virt::GuestProcessor;
use virt::HostInfo;
use virt::HostKind;
use virt::Hypervisor;
use virt::IrqchipMode;
use virt::MappingAccess;
use virt::NewPartition;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::VpBinder;

/// Three pages and one page that KVM on Intel processors without unrestricted guests puts into the
/// guest-physical address space: below what firmware images take, above the local APIC.
const TSS_ADDRESS: usize = 0xfeff_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;

/// The host's KVM.
pub struct KvmHypervisor {
    system: Arc<System>,
}

impl KvmHypervisor {
    /// Opens `/dev/kvm`.
    pub fn open() -> Result<Self, Error> {
        let system = Arc::new(System::open(None)?);
        Ok(Self { system })
    }
}

/// Creates a VM in the background while its configuration is still being read.
///
/// Creating one is the kernel's longest step of a start, and depends on nothing that a user can choose.
pub struct HeadStart(Option<mpsc::Receiver<Result<Arc<System>, Error>>>);

impl HeadStart {
    /// Begins, on its own thread. A VM that is not used ends with the process.
    pub fn begin() -> Self {
        let (send, opened) = mpsc::channel();
        let begun = std::thread::Builder::new()
            .name("kvm-head-start".into())
            .spawn(move || {
                let (send_vm, vm) = mpsc::channel();
                let system = System::open(Some(vm)).map(Arc::new);
                let kept = system.as_ref().ok().cloned();
                // Nobody waits: no VM is needed.
                if send.send(system).is_ok()
                    && let Some(system) = kept
                {
                    let _ = send_vm.send(system.make_vm());
                }
            });
        Self(begun.is_ok().then_some(opened))
    }

    /// As [`KvmHypervisor::open`]; the first partition uses the VM begun.
    pub fn finish(self) -> Result<KvmHypervisor, Error> {
        match self.0.and_then(|opened| opened.recv().ok()) {
            Some(system) => Ok(KvmHypervisor { system: system? }),
            None => KvmHypervisor::open(),
        }
    }
}

impl Hypervisor for KvmHypervisor {
    fn host_info(&self) -> Result<HostInfo, Error> {
        let kvm = &self.system.kvm;
        Ok(HostInfo {
            kind: self.system.kind,
            address_bits: cpuid::address_bits(self.system.supported_cpuid()?),
            // KVM has the state even where its module's parameter `nested` is off.
            nested: kvm.check_extension_raw(KVM_CAP_NESTED_STATE.into()) > 0
                && cpuid::has_nested(self.system.supported_cpuid()?),
        })
    }

    fn max_msi_vectors(&self, irqchip: IrqchipMode) -> u32 {
        let routes = self
            .system
            .kvm
            .check_extension_raw(KVM_CAP_IRQ_ROUTING.into());
        routing::max_msi_vectors(irqchip, u32::try_from(routes).unwrap_or(0))
    }

    fn guest_processor(
        &self,
        topology: &Topology,
        processor: &ProcessorFeatures,
    ) -> Result<GuestProcessor, Error> {
        let system = &self.system;
        let deadline = system
            .kvm
            .check_extension_raw(KVM_CAP_TSC_DEADLINE_TIMER.into());
        let capabilities = Capabilities {
            tsc_deadline_timer: deadline > 0,
            ..Capabilities::default()
        };
        let supported = system.supported_cpuid()?;
        let bsp = topology.vps()[0];
        Ok(GuestProcessor {
            cpuid: cpuid::build_cpuid(supported, topology, bsp, &capabilities, processor),
            tsc_khz: system.tsc_khz()?,
        })
    }

    fn new_partition(&self, config: PartitionConfig<'_>) -> Result<NewPartition, Error> {
        let system = &self.system;
        if config.processor.nested && !self.host_info()?.nested {
            return Err(Error::NestedNotSupported);
        }
        let vm = system.create_vm()?;
        let capabilities = capabilities::enable_capabilities(&vm, system.kind, config.irqchip)?;
        let mut intercepts = config.processor.msr_intercepts();
        if !intercepts.is_empty() && !capabilities.user_space_msr {
            return Err(Error::MissingCapability {
                what: "KVM_CAP_X86_USER_SPACE_MSR",
            });
        }
        if !config.processor.nested && capabilities.user_space_msr {
            // KVM lets any guest use them.
            intercepts.extend(cpuid::nested_msrs(system.supported_cpuid()?));
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
            lost_interrupts: LogLimit::new(),
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
