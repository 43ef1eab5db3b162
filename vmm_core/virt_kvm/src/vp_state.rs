//! A VP's state as a table: each element once, and the orders in which elements are read and written.
//!
//! Reading some elements changes others, and writing some depends on others having been written. The tests list what
//! must come before what, and why, and check the orders here.

use crate::activity;
use crate::clock::Clock;
use crate::cpuid;
use crate::ioctl;
use crate::msr;
use crate::msr::Phase;
use crate::msr::Tolerance;
use crate::nested;
use crate::registers;
use crate::state_table;
use crate::state_table::Row;
use crate::state_table::put;
use crate::vp::KvmVp;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use std::ops::RangeInclusive;
use virt::Error;
use virt::x86::Events;
use virt::x86::Msr;
use virt::x86::Registers;
use virt::x86::Smi;
use virt::x86::VpState;
use virt::x86::reset as x86;

/// The largest XSAVE area accepted: far more than any processor has.
const MAX_XSAVE: usize = 1 << 16;
/// How far two clocks may differ and still be the same frequency, in parts per million: KVM's own tolerance.
const TSC_TOLERANCE_PPM: u64 = 250;
/// Offset of the version register in the local APIC's page.
const LAPIC_VERSION: usize = 0x30;

type VpRow = Row<KvmVp, VpState>;

const CPUID: VpRow = Row {
    name: "CPUID table",
    read: |vp, state| put(&mut state.cpuid, vp.cpuid.borrow().clone()),
    write: |vp, state| {
        if state.cpuid != *vp.cpuid.borrow() {
            // Once the VP has run KVM takes only the table it has.
            vp.write_cpuid(&state.cpuid)?;
            vp.cpuid.replace(state.cpuid.clone());
        }
        Ok(())
    },
    ..Row::EMPTY
};

const TSC_FREQUENCY: VpRow = Row {
    name: "TSC frequency",
    read: |vp, state| {
        let khz = vp.call("read the TSC frequency", VcpuFd::get_tsc_khz)?;
        put(&mut state.tsc.khz, khz)
    },
    write: |vp, state| {
        let khz = state.tsc.khz;
        let host = vp.call("read the TSC frequency", VcpuFd::get_tsc_khz)?;
        if is_same_frequency(host, khz) {
            return Ok(());
        }
        let text = format_args!(
            "the saved time stamp counter runs at {khz} kHz, this host's at {host} kHz, and the host's KVM cannot \
             scale it"
        );
        vp.require(vp.partition.capabilities.tsc_control, text)?;
        vp.call("write the TSC frequency", |vcpu| vcpu.set_tsc_khz(khz))
    },
    ..Row::EMPTY
};

/// Written when the clock is started.
const TSC: VpRow = Row {
    name: "TSC",
    read: |vp, state| put(&mut state.tsc.value, Clock::tsc(&vp.shared)?),
    write: |vp, state| put(&mut *vp.shared.stopped_tsc.lock(), Some(state.tsc.value)),
    ..Row::EMPTY
};

/// The MSRs that are written before the XSAVE area. All MSRs are read and reset here.
const EARLY_MSRS: VpRow = Row {
    name: "early MSRs",
    read: |vp, state| {
        let indices: Vec<_> = vp.initial_msrs().iter().map(|m| m.index).collect();
        let msrs = msr::read_readable(&vp.shared.vcpu, &indices)?;
        put(&mut state.msrs, msrs)
    },
    write: |vp, state| write_msrs(vp, state, Phase::Capabilities..=Phase::Xss),
    reset: |vp, state| put(&mut state.msrs, vp.initial_msrs().to_vec()),
    ..Row::EMPTY
};

const MSRS: VpRow = Row {
    name: "MSRs",
    write: |vp, state| write_msrs(vp, state, Phase::Ordinary..=Phase::Enables),
    ..Row::EMPTY
};

const TSC_DEADLINE: VpRow = Row {
    name: "TSC deadline",
    write: |vp, state| write_msrs(vp, state, Phase::TscDeadline..=Phase::TscDeadline),
    ..Row::EMPTY
};

/// Segment, table and control registers, and the address of the local APIC. Writing writes the PDPTRs too.
const SPECIAL_REGISTERS: VpRow = Row {
    name: "special registers",
    read: |vp, state| {
        let sregs = vp.call("read the control registers", VcpuFd::get_sregs)?;
        registers::take_special(&mut state.registers, &sregs);
        Ok(())
    },
    write: |vp, state| {
        if !vp.partition.capabilities.sregs2 {
            return vp.write_special(&state.registers);
        }
        let sregs = registers::kvm_sregs2_of(&state.registers, state.pdptrs);
        vp.call("write the control registers", |vcpu| {
            ioctl::set_sregs2(vcpu, &sregs)
        })
    },
    ..Row::EMPTY
};

const PDPTRS: VpRow = Row {
    name: "PDPTRs",
    exists: |vp| vp.partition.capabilities.sregs2,
    read: |vp, state| {
        let sregs = vp.call("read the control registers", ioctl::get_sregs2)?;
        let valid = sregs.flags & u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
        put(&mut state.pdptrs, valid.then_some(sregs.pdptrs))
    },
    ..Row::EMPTY
};

/// The registers that are not special. The special ones are reset here too.
const GENERAL_REGISTERS: VpRow = Row {
    name: "general registers",
    read: |vp, state| {
        let regs = vp.call("read the registers", VcpuFd::get_regs)?;
        registers::take_general(&mut state.registers, &regs);
        Ok(())
    },
    write: |vp, state| vp.write_general(&state.registers),
    reset: |vp, state| {
        let cpuid = vp.cpuid.borrow();
        let signature = cpuid.iter().find(|e| e.leaf == 1).map_or(0, |e| e.eax);
        put(&mut state.registers, x86::registers(vp.is_bsp(), signature))
    },
    ..Row::EMPTY
};

/// Makes KVM load the root of its own page tables again: no element of the saved state.
///
/// On SVM it clears the VMCB when the guest shuts down, the root with it, and does not notice if the guest had no
/// paging on. A changed CR3 makes it.
const PAGE_TABLE_ROOT: VpRow = Row {
    name: "page table root",
    write: |vp, _| {
        let cr3 = 0x1000;
        let registers = x86::registers(vp.is_bsp(), 0);
        vp.write_special(&Registers { cr3, ..registers })
    },
    ..Row::EMPTY
};

const XCR0: VpRow = Row {
    name: "XCR0",
    read: |vp, state| {
        let xcrs = vp.call("read XCR0", VcpuFd::get_xcrs)?;
        let mut present = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
        put(
            &mut state.xcr0,
            present.find(|x| x.xcr == 0).map_or(1, |x| x.value),
        )
    },
    write: |vp, state| {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = state.xcr0;
        vp.call("write XCR0", |vcpu| vcpu.set_xcrs(&xcrs))
    },
    reset: |_, state| put(&mut state.xcr0, 1),
    ..Row::EMPTY
};

const XSAVE: VpRow = Row {
    name: "XSAVE area",
    check: |vp, state| {
        let (len, room) = (state.xsave.len(), vp.partition.capabilities.xsave_size);
        let possible = (x86::XSAVE_MIN_SIZE..=MAX_XSAVE).contains(&len);
        vp.require(
            possible,
            format_args!("the saved XSAVE area has {len} bytes"),
        )?;
        let text =
            format_args!("the saved XSAVE area has state beyond the {room} bytes of this host");
        vp.require(state.xsave.iter().skip(room).all(|&b| b == 0), text)
    },
    read: |vp, state| {
        let size = vp.partition.capabilities.xsave_size;
        let area = vp.call("read the XSAVE area", |vcpu| ioctl::get_xsave2(vcpu, size))?;
        put(&mut state.xsave, area)
    },
    write: |vp, state| {
        let size = vp.partition.capabilities.xsave_size;
        let mut area = state.xsave.clone();
        area.truncate(size);
        vp.call("write the XSAVE area", |vcpu| {
            ioctl::set_xsave(vcpu, area, size)
        })
    },
    reset: |_, state| put(&mut state.xsave, x86::xsave()),
    ..Row::EMPTY
};

const LAPIC: VpRow = Row {
    name: "local APIC",
    check: |vp, state| {
        let (len, size) = (state.lapic.len(), x86::LAPIC_SIZE);
        vp.require(
            len == size,
            format_args!("the saved local APIC has {len} bytes, not {size}"),
        )
    },
    read: |vp, state| {
        let lapic = vp.call("read the local APIC", VcpuFd::get_lapic)?;
        put(&mut state.lapic, lapic.regs.map(|b| b as u8).to_vec())
    },
    write: |vp, state| {
        let mut lapic = kvm_lapic_state::default();
        for (to, from) in lapic.regs.iter_mut().zip(&state.lapic) {
            *to = *from as libc::c_char;
        }
        vp.call("write the local APIC", |vcpu| vcpu.set_lapic(&lapic))
    },
    // The version is KVM's.
    reset: |vp, state| {
        let regs = vp.call("read the local APIC", VcpuFd::get_lapic)?.regs;
        let version = std::array::from_fn(|n| regs[LAPIC_VERSION + n] as u8);
        let (version, apic_id) = (u32::from_le_bytes(version), vp.shared.topology.apic_id);
        put(&mut state.lapic, x86::lapic(version, apic_id, vp.is_bsp()))
    },
    ..Row::EMPTY
};

/// MSRs and SynIC of Hyper-V: guests are not offered them.
const HYPERV: VpRow = Row {
    name: "Hyper-V MSRs and SynIC",
    ..Row::EMPTY
};

const EVENTS: VpRow = Row {
    name: "events",
    check: |vp, state| {
        activity::kvm_vcpu_events_of(&state.events, &vp.partition.capabilities).map(drop)
    },
    read: |vp, state| {
        let events = vp.call("read the events", VcpuFd::get_vcpu_events)?;
        put(&mut state.events, activity::events(&events))
    },
    write: |vp, state| {
        let events = activity::kvm_vcpu_events_of(&state.events, &vp.partition.capabilities)?;
        vp.call("write the events", |vcpu| vcpu.set_vcpu_events(&events))
    },
    // System management mode is left where KVM has it.
    reset: |vp, state| {
        let events = vp.call("read the events", VcpuFd::get_vcpu_events)?;
        put(
            &mut state.events,
            events_at_reset(&activity::events(&events)),
        )
    },
    ..Row::EMPTY
};

const DEBUG_REGISTERS: VpRow = Row {
    name: "debug registers",
    read: |vp, state| {
        let debug = vp.call("read the debug registers", VcpuFd::get_debug_regs)?;
        put(&mut state.debug, registers::debug_registers(&debug))
    },
    write: |vp, state| {
        let debug = registers::kvm_debugregs_of(&state.debug);
        vp.call("write the debug registers", |vcpu| {
            vcpu.set_debug_regs(&debug)
        })
    },
    reset: |_, state| put(&mut state.debug, x86::debug_registers()),
    ..Row::EMPTY
};

const ACTIVITY: VpRow = Row {
    name: "activity",
    read: |vp, state| {
        let activity = vp.call("read the activity", VcpuFd::get_mp_state)?;
        put(&mut state.activity, activity::activity(activity)?)
    },
    write: |vp, state| {
        let activity = activity::kvm_mp_state_of(state.activity);
        vp.call("write the activity", |vcpu| vcpu.set_mp_state(activity))
    },
    reset: |vp, state| put(&mut state.activity, x86::activity(vp.is_bsp())),
    ..Row::EMPTY
};

/// The pointer of the shadow stack, which is in no other element.
const SHADOW_STACK: VpRow = Row {
    name: "shadow stack pointer",
    exists: |vp| cpuid::has_shadow_stack(&vp.cpuid.borrow()),
    read: |vp, state| {
        let ssp = vp.call("read the shadow stack pointer", ioctl::get_ssp)?;
        put(&mut state.ssp, Some(ssp))
    },
    write: |vp, state| match state.ssp {
        Some(ssp) => vp.call("write the shadow stack pointer", |vcpu| {
            ioctl::set_ssp(vcpu, ssp)
        }),
        None => Ok(()),
    },
    reset: |_, state| put(&mut state.ssp, Some(0)),
    ..Row::EMPTY
};

/// Takes the VP out of the guest of its guest, and out of VMX operation: no element of the saved state.
///
/// In VMX operation KVM refuses much of what the other elements may be, and in guest mode it takes them for the inner
/// guest's.
const NESTED_EXIT: VpRow = Row {
    name: "nested exit",
    exists: nested::is_offered,
    write: |vp, _| nested::leave(vp),
    ..Row::EMPTY
};

/// The state of the guest's own guests.
const NESTED_STATE: VpRow = Row {
    name: "nested state",
    exists: nested::is_offered,
    check: nested::check,
    read: |vp, state| put(&mut state.nested, nested::read(vp)?),
    write: |vp, state| nested::write(vp, &state.nested),
    ..Row::EMPTY
};

#[rustfmt::skip]
const SAVE: &[&VpRow] = &[
    &ACTIVITY, &EVENTS, &GENERAL_REGISTERS, &SPECIAL_REGISTERS, &PDPTRS, &XSAVE, &XCR0, &EARLY_MSRS, &TSC,
    &TSC_FREQUENCY, &LAPIC, &HYPERV, &DEBUG_REGISTERS, &SHADOW_STACK, &NESTED_STATE, &CPUID,
];

#[rustfmt::skip]
const RESTORE: &[&VpRow] = &[
    &NESTED_EXIT, &CPUID, &TSC_FREQUENCY, &TSC, &EARLY_MSRS, &SPECIAL_REGISTERS, &PDPTRS, &XCR0, &XSAVE,
    &GENERAL_REGISTERS, &MSRS, &SHADOW_STACK, &LAPIC, &TSC_DEADLINE, &HYPERV, &EVENTS, &DEBUG_REGISTERS, &ACTIVITY,
    &NESTED_STATE,
];

/// The CPUID table and the TSC's frequency stay. Of nested state nothing is left after the exit.
#[rustfmt::skip]
const RESET: &[&VpRow] = &[
    &NESTED_EXIT, &TSC, &PAGE_TABLE_ROOT, &EARLY_MSRS, &SPECIAL_REGISTERS, &PDPTRS, &XCR0, &XSAVE, &GENERAL_REGISTERS,
    &MSRS, &SHADOW_STACK, &LAPIC, &TSC_DEADLINE, &HYPERV, &EVENTS, &DEBUG_REGISTERS, &ACTIVITY,
];

impl KvmVp {
    /// See [`virt::Vp::save`].
    pub(crate) fn save_state(&self) -> Result<VpState, Error> {
        state_table::save(self, SAVE)
    }

    /// See [`virt::Vp::restore`].
    pub(crate) fn restore_state(&self, state: &VpState) -> Result<(), Error> {
        state_table::restore(self, state, RESTORE)
    }

    /// See [`virt::Vp::reset`].
    pub(crate) fn reset_state(&self) -> Result<(), Error> {
        state_table::reset(self, RESET)
    }

    /// See [`virt::Vp::registers`].
    pub(crate) fn read_registers(&self) -> Result<Registers, Error> {
        let state = state_table::save(self, &[&GENERAL_REGISTERS, &SPECIAL_REGISTERS])?;
        Ok(state.registers)
    }
}

/// Writes the MSRs of some phases; those of one phase in the order of the state.
fn write_msrs(vp: &KvmVp, state: &VpState, phases: RangeInclusive<Phase>) -> Result<(), Error> {
    let msrs = of_phases(&state.msrs, &phases);
    msr::write(&vp.shared.vcpu, &msrs, Tolerance::SameValue)
}

/// Those of some phases, in the order to write them. The order of a saved state is that of the VMM that saved it.
fn of_phases(msrs: &[Msr], phases: &RangeInclusive<Phase>) -> Vec<Msr> {
    let mut msrs = msrs.to_vec();
    msrs.retain(|m| phases.contains(&msr::phase(m.index)));
    msrs.sort_by_key(|m| msr::phase(m.index));
    msrs
}

/// Whether a saved frequency and the host's are one, each measured.
fn is_same_frequency(host: u32, khz: u32) -> bool {
    u64::from(host.abs_diff(khz)) * 1_000_000 <= u64::from(host) * TSC_TOLERANCE_PPM
}

/// A VP that is reset leaves system management mode, where KVM has it.
fn events_at_reset(now: &Events) -> Events {
    Events {
        smi: now.smi.map(|_| Smi::default()),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "vp_state_test.rs"]
mod tests;
