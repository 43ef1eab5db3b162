//! Stopping the guest's clocks.

use crate::code::Code;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use crate::machine::hypervisor;
use crate::machine::run;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use virt::HostKind;
use virt::Hypervisor as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// KVM's paravirtual clock (Documentation/virt/kvm/x86/msr.rst): the MSR, and where the guest has its page.
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const PAGE: u64 = 0x3000;

struct Times {
    clock_ns: u64,
    tsc: u64,
}

/// What the guest reads: its TSC, and the clock computed from it as its page says.
fn times(machine: &Machine) -> Times {
    let read = |gpa| {
        machine
            .memory
            .map()
            .read_obj::<u64>(GuestAddress(gpa))
            .unwrap()
    };
    let tsc = read(0x2000);
    let (tsc_timestamp, system_time, scale) = (read(PAGE + 8), read(PAGE + 16), read(PAGE + 24));
    let (multiplier, shift) = (scale as u32, (scale >> 32) as i8);
    let ticks = i128::from(tsc.wrapping_sub(tsc_timestamp) as i64);
    let shifted = if shift < 0 {
        ticks >> -shift
    } else {
        ticks << shift
    };
    let clock = i128::from(system_time) + ((shifted * i128::from(multiplier)) >> 32);
    Times {
        clock_ns: clock as u64,
        tsc,
    }
}

#[test]
fn time_stands_still_while_the_clock_is_stopped() {
    let code = Code::new().wrmsr(SYSTEM_TIME, PAGE | 1);
    let top = code.bytes().len();
    let code = code
        .rdtsc()
        .store_eax(0x2000)
        .raw(&[0x66, 0x89, 0x16, 0x04, 0x20]) // mov [0x2004], edx
        .done()
        .jmp(top);
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    run(&mut *vp, &bus);

    let outer = Instant::now();
    run(&mut *vp, &bus);
    let before = times(&machine);
    machine.partition.stop_clock().unwrap();
    let inner = Instant::now();
    thread::sleep(Duration::from_millis(500));
    let stood = inner.elapsed();
    machine.partition.start_clock().unwrap();
    run(&mut *vp, &bus);
    let after = times(&machine);
    let ran = outer.elapsed() - stood;

    // However slow the machine, the guest saw no more time than passed outside the stop.
    let slack = Duration::from_millis(20);
    let clock = Duration::from_nanos(after.clock_ns.wrapping_sub(before.clock_ns));
    assert!(clock <= ran + slack, "clock {clock:?}, ran {ran:?}");
    if hypervisor().host_info().unwrap().kind != HostKind::Software {
        let khz = u128::from(vp.save().unwrap().tsc.khz);
        let ticks = u128::from(after.tsc.wrapping_sub(before.tsc));
        let limit = (ran + slack).as_micros() * khz / 1000;
        assert!(ticks <= limit, "{ticks} ticks, at most {limit}");
    }
}

#[test]
fn a_clock_that_was_not_stopped_starts() {
    let machine = Machine::new(&Code::new(), Options::default());
    machine.partition.start_clock().unwrap();
    machine.partition.stop_clock().unwrap();
    let stopped = machine.partition.save().unwrap().clock_ns;
    machine.partition.stop_clock().unwrap();
    assert_eq!(machine.partition.save().unwrap().clock_ns, stopped);
    machine.partition.start_clock().unwrap();
    assert!(machine.partition.save().unwrap().clock_ns >= stopped);
}
