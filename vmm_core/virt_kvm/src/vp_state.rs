//! A VP's whole state: reading it, writing it, and what it is at power-on.
//!
//! Reading some parts changes others, and writing some depends on others having been written: the order of the
//! calls here matters, and is said where it does.

use crate::activity;
use crate::clock::Clock;
use crate::ioctl;
use crate::msr;
use crate::msr::Phase;
use crate::msr::Tolerance;
use crate::registers;
use crate::vp::KvmVp;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::KVM_SREGS2_FLAGS_PDPTRS_VALID;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_xcrs;
use std::io;
use virt::Error;
use virt::x86::DebugRegisters;
use virt::x86::Events;
use virt::x86::Msr;
use virt::x86::Registers;
use virt::x86::Smi;
use virt::x86::Tsc;
use virt::x86::VpState;
use virt::x86::reset;
use virt::x86::reset::LAPIC_SIZE;
use virt::x86::reset::XSAVE_MIN_SIZE;

/// The largest XSAVE area accepted: far more than any processor has.
const MAX_XSAVE: usize = 1 << 16;
/// How far two clocks may differ and still be the same frequency, in parts per million: KVM's own tolerance.
const TSC_TOLERANCE_PPM: u64 = 250;

impl KvmVp {
    fn call(&self, what: &str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
        let operation = format!("{what} of {}", self.shared.topology.index);
        |e| Error::call(operation, e)
    }

    fn call_io(&self, what: &str) -> impl FnOnce(io::Error) -> Error {
        let operation = format!("{what} of {}", self.shared.topology.index);
        |e| Error::call(operation, e)
    }

    /// See [`virt::Vp::save`].
    pub(crate) fn save_state(&self) -> Result<VpState, Error> {
        let vcpu = &*self.shared.vcpu;
        // First: KVM acts on a pending INIT or SIPI when asked, which changes everything else.
        let activity = vcpu
            .get_mp_state()
            .map_err(self.call("read the activity"))
            .and_then(activity::activity)?;
        let events = vcpu
            .get_vcpu_events()
            .map_err(self.call("read the events"))?;
        let registers = self.read_registers()?;
        let pdptrs = if self.partition.capabilities.sregs2 {
            let sregs =
                ioctl::get_sregs2(vcpu).map_err(self.call_io("read the control registers"))?;
            (sregs.flags & u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0).then_some(sregs.pdptrs)
        } else {
            None
        };
        let xsave = ioctl::get_xsave2(vcpu, self.partition.capabilities.xsave_size)
            .map_err(self.call_io("read the XSAVE area"))?;
        let xcrs = vcpu.get_xcrs().map_err(self.call("read XCR0"))?;
        let xcr0 = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
        let xcr0 = xcr0.clone().find(|x| x.xcr == 0).map_or(1, |x| x.value);
        // Before the local APIC: a timer that fires in between is then in both, which does no harm.
        let indices: Vec<_> = self.initial_msrs().iter().map(|m| m.index).collect();
        let msrs = msr::read_readable(vcpu, &indices)?;
        let tsc = Tsc {
            value: Clock::tsc(&self.shared)?,
            khz: vcpu
                .get_tsc_khz()
                .map_err(self.call("read the TSC frequency"))?,
        };
        let lapic = vcpu.get_lapic().map_err(self.call("read the local APIC"))?;
        let debug = vcpu
            .get_debug_regs()
            .map_err(self.call("read the debug registers"))?;
        Ok(VpState {
            registers,
            cpuid: self.cpuid.clone(),
            activity,
            events: activity::events(&events),
            pdptrs,
            xcr0,
            xsave,
            msrs,
            tsc,
            lapic: lapic.regs.map(|b| b as u8).to_vec(),
            debug: DebugRegisters {
                addresses: debug.db,
                dr6: debug.dr6,
                dr7: debug.dr7,
            },
        })
    }

    /// See [`virt::Vp::restore`].
    pub(crate) fn restore_state(&mut self, state: &VpState) -> Result<(), Error> {
        self.check(state)?;
        if state.cpuid != self.cpuid {
            // Once the VP has run KVM takes only the table it has.
            self.write_cpuid(&state.cpuid)?;
            self.cpuid.clone_from(&state.cpuid);
        }
        self.restore_tsc(state.tsc)?;
        self.write_state(state)
    }

    /// See [`virt::Vp::reset`].
    pub(crate) fn reset_state(&self) -> Result<(), Error> {
        let current = self.shared.vcpu.get_lapic();
        let current = current.map_err(self.call("read the local APIC"))?;
        let events = self.shared.vcpu.get_vcpu_events();
        let events = events.map_err(self.call("read the events"))?;
        let [a, b, c, d] = std::array::from_fn(|n| current.regs[0x30 + n] as u8);
        let version = u32::from_le_bytes([a, b, c, d]);
        let bsp = self.shared.topology.index.is_bsp();
        let apic_id = self.shared.topology.apic_id;
        let signature = self.cpuid.iter().find(|e| e.leaf == 1);
        *self.shared.stopped_tsc.lock() = Some(0);
        self.renew_page_table_root()?;
        self.write_state(&VpState {
            registers: reset::registers(bsp, signature.map_or(0, |e| e.eax)),
            cpuid: Vec::new(),
            activity: reset::activity(bsp),
            events: Events {
                smi: activity::events(&events).smi.map(|_| Smi::default()),
                ..Default::default()
            },
            pdptrs: None,
            xcr0: 1,
            xsave: reset::xsave(),
            msrs: self.initial_msrs().to_vec(),
            tsc: Tsc::default(),
            lapic: reset::lapic(version, apic_id, bsp),
            debug: reset::debug_registers(),
        })
    }

    /// Makes KVM load the root of its own page tables again.
    ///
    /// On SVM it clears the VMCB when the guest shuts down, the root with it, and does not notice if the guest
    /// had no paging on. A changed CR3 makes it.
    fn renew_page_table_root(&self) -> Result<(), Error> {
        const OTHER_CR3: u64 = 0x1000;
        self.shared
            .vcpu
            .set_sregs(&registers::kvm_sregs_of(&Registers {
                cr3: OTHER_CR3,
                ..reset::registers(self.shared.topology.index.is_bsp(), 0)
            }))
            .map_err(self.call("write the control registers"))
    }

    fn initial_msrs(&self) -> std::sync::Arc<[Msr]> {
        let initial = self.partition.initial_msrs.lock();
        initial.clone().unwrap_or_else(|| [].into())
    }

    /// What no KVM call would refuse by itself.
    fn check(&self, state: &VpState) -> Result<(), Error> {
        let index = self.shared.topology.index;
        let invalid = |what: String| Err(Error::InvalidRequest(format!("{index}: {what}")));
        if state.lapic.len() != LAPIC_SIZE {
            return invalid(format!(
                "the saved local APIC has {} bytes, not {LAPIC_SIZE}",
                state.lapic.len()
            ));
        }
        if !(XSAVE_MIN_SIZE..=MAX_XSAVE).contains(&state.xsave.len()) {
            return invalid(format!(
                "the saved XSAVE area has {} bytes",
                state.xsave.len()
            ));
        }
        let room = self.partition.capabilities.xsave_size;
        if state.xsave.iter().skip(room).any(|&b| b != 0) {
            return invalid(format!(
                "the saved XSAVE area has state beyond the {room} bytes of this host"
            ));
        }
        if state.cpuid.len() > KVM_MAX_CPUID_ENTRIES {
            return invalid(format!("{} saved CPUID entries", state.cpuid.len()));
        }
        activity::kvm_vcpu_events_of(&state.events, &self.partition.capabilities)?;
        Ok(())
    }

    fn restore_tsc(&self, tsc: Tsc) -> Result<(), Error> {
        let vcpu = &self.shared.vcpu;
        let host = vcpu
            .get_tsc_khz()
            .map_err(self.call("read the TSC frequency"))?;
        let difference = u64::from(host.abs_diff(tsc.khz));
        if difference * 1_000_000 > u64::from(host) * TSC_TOLERANCE_PPM {
            if !self.partition.capabilities.tsc_control {
                return Err(Error::InvalidRequest(format!(
                    "the saved time stamp counter runs at {} kHz, this host's at {host} kHz, \
                     and the host's KVM cannot scale it",
                    tsc.khz
                )));
            }
            vcpu.set_tsc_khz(tsc.khz)
                .map_err(self.call("set the TSC frequency"))?;
        }
        *self.shared.stopped_tsc.lock() = Some(tsc.value);
        Ok(())
    }

    /// Everything but the CPUID table and the TSC.
    fn write_state(&self, state: &VpState) -> Result<(), Error> {
        let vcpu = &*self.shared.vcpu;
        let capabilities = &self.partition.capabilities;
        // Stable, so that the order within a phase is that of the saved list.
        let mut msrs = state.msrs.clone();
        msrs.sort_by_key(|m| msr::phase(m.index));
        let (early, rest) = msrs.split_at(msrs.partition_point(|m| phase(m) < Phase::Ordinary));
        let (ordinary, last) =
            rest.split_at(rest.partition_point(|m| phase(m) < Phase::TscDeadline));

        msr::write(vcpu, early, Tolerance::SameValue)?;
        // Sets the APIC base too, which the local APIC's registers depend on.
        if capabilities.sregs2 {
            let sregs = registers::kvm_sregs2_of(&state.registers, state.pdptrs);
            ioctl::set_sregs2(vcpu, &sregs).map_err(self.call_io("write the control registers"))?;
        } else {
            vcpu.set_sregs(&registers::kvm_sregs_of(&state.registers))
                .map_err(self.call("write the control registers"))?;
        }
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = state.xcr0;
        vcpu.set_xcrs(&xcrs).map_err(self.call("write XCR0"))?;
        let mut xsave = state.xsave.clone();
        xsave.truncate(capabilities.xsave_size);
        ioctl::set_xsave(vcpu, xsave, capabilities.xsave_size)
            .map_err(self.call_io("write the XSAVE area"))?;
        vcpu.set_regs(&registers::kvm_regs_of(&state.registers))
            .map_err(self.call("write the registers"))?;
        msr::write(vcpu, ordinary, Tolerance::SameValue)?;
        let mut lapic = kvm_lapic_state::default();
        for (to, from) in lapic.regs.iter_mut().zip(&state.lapic) {
            *to = *from as libc::c_char;
        }
        vcpu.set_lapic(&lapic)
            .map_err(self.call("write the local APIC"))?;
        msr::write(vcpu, last, Tolerance::SameValue)?;
        // After the registers, which clear a pending exception, and the local APIC.
        let events = activity::kvm_vcpu_events_of(&state.events, capabilities)?;
        vcpu.set_vcpu_events(&events)
            .map_err(self.call("write the events"))?;
        vcpu.set_debug_regs(&kvm_debugregs {
            db: state.debug.addresses,
            dr6: state.debug.dr6,
            dr7: state.debug.dr7,
            ..Default::default()
        })
        .map_err(self.call("write the debug registers"))?;
        vcpu.set_mp_state(activity::kvm_mp_state_of(state.activity))
            .map_err(self.call("write the activity"))
    }
}

fn phase(msr: &Msr) -> Phase {
    msr::phase(msr.index)
}
