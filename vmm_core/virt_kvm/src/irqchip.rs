//! State of KVM's PICs, IOAPIC and PIT.
#![allow(
    unsafe_code,
    reason = "KVM describes the three kinds of chips by one union"
)]

use kvm_bindings::KVM_IRQCHIP_IOAPIC;
use kvm_bindings::KVM_IRQCHIP_PIC_MASTER;
use kvm_bindings::KVM_IRQCHIP_PIC_SLAVE;
use kvm_bindings::kvm_ioapic_state;
use kvm_bindings::kvm_ioapic_state__bindgen_ty_1;
use kvm_bindings::kvm_irqchip;
use kvm_bindings::kvm_pic_state;
use kvm_bindings::kvm_pit_channel_state;
use kvm_bindings::kvm_pit_state2;
use kvm_ioctls::VmFd;
use virt::Error;
use virt::x86::Ioapic;
use virt::x86::Irqchip;
use virt::x86::Pic;
use virt::x86::Pit;
use virt::x86::PitChannel;

fn get(vm: &VmFd, chip_id: u32) -> Result<kvm_irqchip, Error> {
    let mut chip = kvm_irqchip {
        chip_id,
        ..Default::default()
    };
    vm.get_irqchip(&mut chip)
        .map_err(|e| Error::call(format!("read interrupt controller {chip_id}"), e))?;
    Ok(chip)
}

fn set(vm: &VmFd, chip: &kvm_irqchip) -> Result<(), Error> {
    vm.set_irqchip(chip)
        .map_err(|e| Error::call(format!("write interrupt controller {}", chip.chip_id), e))
}

/// The host's monotonic time in nanoseconds, which is what KVM notes the loading of PIT counters in.
fn monotonic_ns() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on every Linux, and `now` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

fn pic(chip: &kvm_irqchip) -> Pic {
    // SAFETY: the chip id is a PIC's, and all members of the union are plain numbers.
    let s = unsafe { chip.chip.pic };
    Pic {
        last_irr: s.last_irr,
        irr: s.irr,
        imr: s.imr,
        isr: s.isr,
        priority_add: s.priority_add,
        irq_base: s.irq_base,
        read_reg_select: s.read_reg_select,
        poll: s.poll,
        special_mask: s.special_mask,
        init_state: s.init_state,
        auto_eoi: s.auto_eoi,
        rotate_on_auto_eoi: s.rotate_on_auto_eoi,
        special_fully_nested_mode: s.special_fully_nested_mode,
        init4: s.init4,
        elcr: s.elcr,
        elcr_mask: s.elcr_mask,
    }
}

fn kvm_pic(chip_id: u32, s: &Pic) -> kvm_irqchip {
    let mut chip = kvm_irqchip {
        chip_id,
        ..Default::default()
    };
    chip.chip.pic = kvm_pic_state {
        last_irr: s.last_irr,
        irr: s.irr,
        imr: s.imr,
        isr: s.isr,
        priority_add: s.priority_add,
        irq_base: s.irq_base,
        read_reg_select: s.read_reg_select,
        poll: s.poll,
        special_mask: s.special_mask,
        init_state: s.init_state,
        auto_eoi: s.auto_eoi,
        rotate_on_auto_eoi: s.rotate_on_auto_eoi,
        special_fully_nested_mode: s.special_fully_nested_mode,
        init4: s.init4,
        elcr: s.elcr,
        elcr_mask: s.elcr_mask,
    };
    chip
}

fn ioapic(chip: &kvm_irqchip) -> Ioapic {
    // SAFETY: the chip id is the IOAPIC's, and all members of the unions are plain numbers.
    unsafe {
        let s = chip.chip.ioapic;
        Ioapic {
            base_address: s.base_address,
            ioregsel: s.ioregsel,
            id: s.id,
            irr: s.irr,
            redirection: s.redirtbl.map(|entry| entry.bits),
        }
    }
}

fn kvm_ioapic(s: &Ioapic) -> kvm_irqchip {
    let mut chip = kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    chip.chip.ioapic = kvm_ioapic_state {
        base_address: s.base_address,
        ioregsel: s.ioregsel,
        id: s.id,
        irr: s.irr,
        pad: 0,
        redirtbl: s
            .redirection
            .map(|bits| kvm_ioapic_state__bindgen_ty_1 { bits }),
    };
    chip
}

fn pit(s: &kvm_pit_state2, now: i64) -> Pit {
    Pit {
        channels: s.channels.map(|c| PitChannel {
            count: c.count,
            latched_count: c.latched_count,
            count_latched: c.count_latched,
            status_latched: c.status_latched,
            status: c.status,
            read_state: c.read_state,
            write_state: c.write_state,
            write_latch: c.write_latch,
            rw_mode: c.rw_mode,
            mode: c.mode,
            bcd: c.bcd,
            gate: c.gate,
            age_ns: u64::try_from(now.saturating_sub(c.count_load_time)).unwrap_or(0),
        }),
        flags: s.flags,
    }
}

fn kvm_pit(s: &Pit, now: i64) -> kvm_pit_state2 {
    kvm_pit_state2 {
        channels: s.channels.map(|c| kvm_pit_channel_state {
            count: c.count,
            latched_count: c.latched_count,
            count_latched: c.count_latched,
            status_latched: c.status_latched,
            status: c.status,
            read_state: c.read_state,
            write_state: c.write_state,
            write_latch: c.write_latch,
            rw_mode: c.rw_mode,
            mode: c.mode,
            bcd: c.bcd,
            gate: c.gate,
            count_load_time: now.saturating_sub(i64::try_from(c.age_ns).unwrap_or(i64::MAX)),
        }),
        flags: s.flags,
        reserved: [0; 9],
    }
}

/// Reads all the chips. Their VM must have them.
pub(crate) fn save(vm: &VmFd) -> Result<Irqchip, Error> {
    let timer = vm
        .get_pit2()
        .map_err(|e| Error::call("read the PIT's state", e))?;
    Ok(Irqchip {
        primary_pic: pic(&get(vm, KVM_IRQCHIP_PIC_MASTER)?),
        secondary_pic: pic(&get(vm, KVM_IRQCHIP_PIC_SLAVE)?),
        ioapic: ioapic(&get(vm, KVM_IRQCHIP_IOAPIC)?),
        pit: pit(&timer, monotonic_ns()),
    })
}

/// Writes all the chips.
pub(crate) fn restore(vm: &VmFd, state: &Irqchip) -> Result<(), Error> {
    set(vm, &kvm_pic(KVM_IRQCHIP_PIC_MASTER, &state.primary_pic))?;
    set(vm, &kvm_pic(KVM_IRQCHIP_PIC_SLAVE, &state.secondary_pic))?;
    set(vm, &kvm_ioapic(&state.ioapic))?;
    vm.set_pit2(&kvm_pit(&state.pit, monotonic_ns()))
        .map_err(|e| Error::call("write the PIT's state", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pit_times_are_relative() {
        let mut state = kvm_pit_state2::default();
        state.channels[2].count = 0x1234;
        state.channels[2].count_load_time = 1_000;
        let saved = pit(&state, 5_000);
        assert_eq!(saved.channels[2].age_ns, 4_000);
        let restored = kvm_pit(&saved, 9_000);
        assert_eq!(restored.channels[2].count_load_time, 5_000);
        assert_eq!(restored.channels[2].count, 0x1234);
    }

    #[test]
    fn hostile_pit_times_do_not_overflow() {
        let mut saved = Pit::default();
        saved.channels[0].age_ns = u64::MAX;
        assert!(kvm_pit(&saved, 1).channels[0].count_load_time < 0);
    }

    #[test]
    fn chips_survive() {
        let state = Ioapic {
            base_address: 0xfec0_0000,
            ioregsel: 3,
            id: 1,
            irr: 0x10,
            redirection: std::array::from_fn(|n| n as u64 | 1 << 60),
        };
        assert_eq!(ioapic(&kvm_ioapic(&state)), state);
        let state = Pic {
            imr: 0xfb,
            irq_base: 0x30,
            elcr_mask: 0xde,
            ..Default::default()
        };
        assert_eq!(pic(&kvm_pic(KVM_IRQCHIP_PIC_SLAVE, &state)), state);
    }
}
