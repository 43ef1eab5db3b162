//! State of KVM's PICs, IOAPIC and PIT.
#![allow(unsafe_code, reason = "KVM has one union for the three kinds of chips")]

use crate::fields::same_fields;
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
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

/// The host's monotonic time in nanoseconds, in which KVM notes when PIT counters were loaded.
fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

same_fields!(take_pic, give_pic: Pic, kvm_pic_state {
    last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi
    rotate_on_auto_eoi special_fully_nested_mode init4 elcr elcr_mask
});

same_fields!(take_pit_channel, give_pit_channel: PitChannel, kvm_pit_channel_state {
    count latched_count count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate
});

fn pic(chip: &kvm_irqchip) -> Pic {
    let mut pic = Pic::default();
    // SAFETY: the chip id is a PIC's, and all members of the union are plain numbers.
    take_pic(&mut pic, unsafe { &chip.chip.pic });
    pic
}

fn kvm_pic(chip_id: u32, s: &Pic) -> kvm_irqchip {
    let mut pic = kvm_pic_state::default();
    give_pic(&mut pic, s);
    kvm_irqchip {
        chip_id,
        chip: kvm_irqchip__bindgen_ty_1 { pic },
        ..Default::default()
    }
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
    let bits = |bits| kvm_ioapic_state__bindgen_ty_1 { bits };
    let ioapic = kvm_ioapic_state {
        base_address: s.base_address,
        ioregsel: s.ioregsel,
        id: s.id,
        irr: s.irr,
        pad: 0,
        redirtbl: s.redirection.map(bits),
    };
    kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        chip: kvm_irqchip__bindgen_ty_1 { ioapic },
        ..Default::default()
    }
}

fn pit(s: &kvm_pit_state2, now: i64) -> Pit {
    let channel = |c: kvm_pit_channel_state| {
        let age_ns = u64::try_from(now.saturating_sub(c.count_load_time)).unwrap_or(0);
        let mut channel = PitChannel {
            age_ns,
            ..Default::default()
        };
        take_pit_channel(&mut channel, &c);
        channel
    };
    Pit {
        channels: s.channels.map(channel),
        flags: s.flags,
    }
}

fn kvm_pit(s: &Pit, now: i64) -> kvm_pit_state2 {
    let channel = |c: PitChannel| {
        let age = i64::try_from(c.age_ns).unwrap_or(i64::MAX);
        let mut channel = kvm_pit_channel_state {
            count_load_time: now.saturating_sub(age),
            ..Default::default()
        };
        give_pit_channel(&mut channel, &c);
        channel
    };
    kvm_pit_state2 {
        channels: s.channels.map(channel),
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
    fn chips_round_trip() {
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
