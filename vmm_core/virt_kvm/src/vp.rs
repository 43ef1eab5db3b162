//! VPs, bound to their threads.

use crate::cpuid;
use crate::ioctl;
use crate::msr;
use crate::partition::Shared;
use crate::registers;
use crate::run_page::RunPage;
use crate::vp_shared::VpShared;
use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use virt::Error;
use virt::IoBus;
use virt::RunError;
use virt::Vp;
use virt::VpBinder;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt::x86::CpuidEntry;
use virt::x86::Msr;
use virt::x86::Registers;
use virt::x86::VpState;
use virt::x86::nested::NestedFormat;

/// A VP that is not yet bound to its thread.
pub(crate) struct KvmVpBinder {
    pub(crate) partition: Arc<Shared>,
    pub(crate) shared: Arc<VpShared>,
    pub(crate) page: RunPage,
}

impl VpBinder for KvmVpBinder {
    fn index(&self) -> VpIndex {
        self.shared.topology.index
    }

    fn bind(self: Box<Self>) -> Result<Box<dyn Vp>, Error> {
        let Self {
            partition,
            shared,
            page,
        } = *self;
        let cpuid = partition.cpuid(shared.topology)?;
        let vp = KvmVp {
            partition,
            shared,
            page,
            cpuid: cpuid.into(),
            _not_send: PhantomData,
        };
        vp.shared
            .kick
            .bind()
            .map_err(|e| Error::call("set up the signal that stops VPs", e))?;
        vp.write_cpuid(&vp.cpuid.borrow())?;
        vp.set_up_mce();
        vp.allow_vmx()?;
        vp.note_initial_msrs()?;
        Ok(Box::new(vp))
    }
}

/// A VP bound to its thread.
pub(crate) struct KvmVp {
    pub(crate) partition: Arc<Shared>,
    pub(crate) shared: Arc<VpShared>,
    pub(crate) page: RunPage,
    /// The table last written: KVM's own copy changes with the guest's control registers.
    pub(crate) cpuid: RefCell<Vec<CpuidEntry>>,
    /// The kick signal goes to the thread that bound the VP.
    _not_send: PhantomData<*const ()>,
}

impl Drop for KvmVp {
    fn drop(&mut self) {
        self.shared.kick.unbind();
    }
}

impl KvmVp {
    pub(crate) fn is_bsp(&self) -> bool {
        self.shared.topology.index.is_bsp()
    }

    /// Calls KVM; `what` is attempted.
    pub(crate) fn call<R, E: Into<io::Error>>(
        &self,
        what: &str,
        call: impl FnOnce(&VcpuFd) -> Result<R, E>,
    ) -> Result<R, Error> {
        let vp = self.shared.topology.index;
        call(&self.shared.vcpu).map_err(|e| Error::call(format!("{what} of {vp}"), e))
    }

    /// Refuses an impossible request.
    pub(crate) fn require(&self, possible: bool, what: fmt::Arguments<'_>) -> Result<(), Error> {
        let vp = self.shared.topology.index;
        let refused = || Error::InvalidRequest(format!("{vp}: {what}"));
        possible.then_some(()).ok_or_else(refused)
    }

    pub(crate) fn write_cpuid(&self, entries: &[CpuidEntry]) -> Result<(), Error> {
        let index = self.shared.topology.index;
        let kvm_entries: Vec<_> = entries.iter().map(cpuid::kvm_entry).collect();
        let table = CpuId::from_entries(&kvm_entries).map_err(|_| {
            Error::InvalidRequest(format!("{index}: {} CPUID entries", entries.len()))
        })?;
        self.call("write the CPUID table", |vcpu| vcpu.set_cpuid2(&table))
    }

    /// Sets the number of machine-check banks. KVM's default is the maximum, which guests are slow to set up.
    fn set_up_mce(&self) {
        let mcg_cap = self.partition.system.mcg_cap();
        if mcg_cap == 0 {
            return;
        }
        if let Err(error) = ioctl::setup_mce(&self.shared.vcpu, mcg_cap) {
            tracing::debug!(%error, mcg_cap, "KVM keeps its default machine-check banks");
        }
    }

    /// Lets the guest enter VMX operation, as firmware would on a processor that has it.
    fn allow_vmx(&self) -> Result<(), Error> {
        let supported = self.partition.system.supported_cpuid()?;
        let processor = &self.partition.processor;
        if !processor.nested || cpuid::nested_format(supported) != NestedFormat::Vmx {
            return Ok(());
        }
        let allowed = Msr {
            index: msr::FEATURE_CONTROL,
            value: msr::FEATURE_CONTROL_VMX,
        };
        msr::write(&self.shared.vcpu, &[allowed], msr::Tolerance::None)
    }

    /// Reads the MSRs that the VM's VPs start with, unless another VP has.
    fn note_initial_msrs(&self) -> Result<(), Error> {
        let mut initial = self.partition.initial_msrs.lock();
        if initial.is_none() {
            let system = &self.partition.system;
            let listed = msr::listed(&system.kvm)?;
            let candidates = msr::candidates(&listed, system.mcg_cap());
            *initial = Some(msr::read_readable(&self.shared.vcpu, &candidates)?.into());
        }
        Ok(())
    }

    /// The MSRs that the VM's VPs start with.
    pub(crate) fn initial_msrs(&self) -> Arc<[Msr]> {
        let initial = self.partition.initial_msrs.lock();
        initial.clone().unwrap_or_else(|| [].into())
    }

    pub(crate) fn write_general(&self, from: &Registers) -> Result<(), Error> {
        let regs = registers::kvm_regs_of(from);
        self.call("write the registers", |vcpu| vcpu.set_regs(&regs))
    }

    pub(crate) fn write_special(&self, from: &Registers) -> Result<(), Error> {
        let sregs = registers::kvm_sregs_of(from);
        self.call("write the control registers", |vcpu| vcpu.set_sregs(&sregs))
    }
}

impl Vp for KvmVp {
    fn index(&self) -> VpIndex {
        self.shared.topology.index
    }

    fn kicker(&self) -> Arc<dyn VpKick> {
        self.shared.kick.clone()
    }

    fn run(&mut self, io: &dyn IoBus) -> Result<VpStop, RunError> {
        self.run_guest(io)
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        self.read_registers()
    }

    fn set_registers(&mut self, r: &Registers) -> Result<(), Error> {
        self.write_special(r)?;
        self.write_general(r)
    }

    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), Error> {
        let msrs = msrs.iter().map(|&(index, value)| Msr { index, value });
        let msrs: Vec<_> = msrs.collect();
        msr::write(&self.shared.vcpu, &msrs, msr::Tolerance::None)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.reset_state()
    }

    fn save(&mut self) -> Result<VpState, Error> {
        self.save_state()
    }

    fn restore(&mut self, state: &VpState) -> Result<(), Error> {
        self.restore_state(state)
    }
}
