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
use kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::KVM_SREGS2_FLAGS_PDPTRS_VALID;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_xcrs;
use std::io;
use virt::Error;
use virt::x86::Activity;
use virt::x86::CpuidEntry;
use virt::x86::DebugRegisters;
use virt::x86::Events;
use virt::x86::Msr;
use virt::x86::Registers;
use virt::x86::Segment;
use virt::x86::Smi;
use virt::x86::TableRegister;
use virt::x86::Tsc;
use virt::x86::VpState;

const LAPIC_SIZE: usize = 1024;
/// The legacy region and the header of an XSAVE area.
const XSAVE_HEADER_END: usize = 576;
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
            cpuid: self.cpuid.iter().map(saved_cpuid).collect(),
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
        let cpuid: Vec<_> = state.cpuid.iter().map(kvm_cpuid).collect();
        if cpuid != self.cpuid {
            // Once the VP has run KVM takes only the table it has.
            self.write_cpuid(&cpuid)?;
            self.cpuid = cpuid;
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
        let bsp = self.shared.topology.index.is_bsp();
        let apic_id = self.shared.topology.apic_id;
        let signature = self.cpuid.iter().find(|e| e.function == 1);
        *self.shared.stopped_tsc.lock() = Some(0);
        self.renew_page_table_root()?;
        self.write_state(&VpState {
            registers: reset_registers(bsp, signature.map_or(0, |e| e.eax)),
            cpuid: Vec::new(),
            activity: if bsp {
                Activity::Running
            } else {
                Activity::WaitForInit
            },
            events: Events {
                smi: activity::events(&events).smi.map(|_| Smi::default()),
                ..Default::default()
            },
            pdptrs: None,
            xcr0: 1,
            xsave: reset_xsave(),
            msrs: self.initial_msrs().to_vec(),
            tsc: Tsc::default(),
            lapic: reset_lapic(&current, apic_id, bsp),
            debug: DebugRegisters {
                addresses: [0; 4],
                dr6: 0xffff_0ff0,
                dr7: 0x400,
            },
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
                ..reset_registers(self.shared.topology.index.is_bsp(), 0)
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
        if !(XSAVE_HEADER_END..=MAX_XSAVE).contains(&state.xsave.len()) {
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

fn saved_cpuid(e: &kvm_cpuid_entry2) -> CpuidEntry {
    CpuidEntry {
        leaf: e.function,
        subleaf: (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(e.index),
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
    }
}

fn kvm_cpuid(e: &CpuidEntry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: e.leaf,
        index: e.subleaf.unwrap_or(0),
        flags: if e.subleaf.is_some() {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
        padding: [0; 3],
    }
}

/// Registers after RESET (SDM volume 3, table 10-1). `signature` is leaf 1's EAX, which RDX has then.
fn reset_registers(bsp: bool, signature: u32) -> Registers {
    let data = Segment {
        limit: 0xffff,
        attributes: 0x93,
        ..Default::default()
    };
    let table = TableRegister {
        base: 0,
        limit: 0xffff,
    };
    Registers {
        rdx: signature.into(),
        rip: 0xfff0,
        rflags: 2,
        cs: Segment {
            base: 0xffff_0000,
            limit: 0xffff,
            selector: 0xf000,
            attributes: 0x9b,
        },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment {
            attributes: 0x8b,
            ..data
        },
        ldtr: Segment {
            attributes: 0x82,
            ..data
        },
        gdtr: table,
        idtr: table,
        cr0: 0x6000_0010,
        // Enabled at its address; bit 8 is the boot processor's.
        apic_base: 0xfee0_0800 | u64::from(bsp) << 8,
        ..Default::default()
    }
}

/// An XSAVE area with x87 and SSE as after RESET, and the rest in its initial state.
fn reset_xsave() -> Vec<u8> {
    let mut area = vec![0; XSAVE_HEADER_END];
    area[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    area[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    // XSTATE_BV: x87 and SSE are in the area.
    area[512] = 3;
    area
}

/// The local APIC after RESET (SDM volume 3, 12.4.7.1), in xAPIC mode. LINT0 of the boot processor takes the
/// PIC's interrupts, as firmware sets it up and KVM does at creation.
fn reset_lapic(current: &kvm_lapic_state, apic_id: u32, bsp: bool) -> Vec<u8> {
    const ID: usize = 0x20;
    const VERSION: usize = 0x30;
    const DFR: usize = 0xe0;
    const SVR: usize = 0xf0;
    const LVT_CMCI: usize = 0x2f0;
    const LVT_TIMER: usize = 0x320;
    const LVT_LINT0: usize = 0x350;
    const LVT_ERROR: usize = 0x370;
    const MASKED: u32 = 1 << 16;
    const EXT_INT: u32 = 7 << 8;

    let mut page = vec![0; LAPIC_SIZE];
    for (to, from) in page[VERSION..VERSION + 4]
        .iter_mut()
        .zip(&current.regs[VERSION..])
    {
        *to = *from as u8;
    }
    // Bits 23:16 of the version are the number of LVT entries less one; the seventh is that of CMCI.
    let has_cmci = page[VERSION + 2] >= 6;
    let mut set = |offset: usize, value: u32| {
        page[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    };
    set(ID, apic_id << 24);
    set(DFR, u32::MAX);
    set(SVR, 0xff);
    if has_cmci {
        set(LVT_CMCI, MASKED);
    }
    for offset in (LVT_TIMER..=LVT_ERROR).step_by(16) {
        set(offset, MASKED);
    }
    if bsp {
        set(LVT_LINT0, EXT_INT);
    }
    page
}
