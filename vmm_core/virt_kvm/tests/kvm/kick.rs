//! Stopping VPs from other threads.

use crate::code::Code;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use virt::VpStop;

#[test]
fn a_halted_vp_is_stopped() {
    let mut machine = Machine::new(&Code::new().hlt().inc_ebx().hlt(), Options::default());
    let mut vp = machine.bsp();
    let kick = vp.kicker();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Likely long enough for the guest to halt; the test holds either way.
            thread::sleep(Duration::from_millis(50));
            kick.kick();
        });
        assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::Requested);
    });
    assert_eq!(vp.registers().unwrap().rbx, 0);
}

#[test]
fn a_vp_that_waits_to_be_started_is_stopped() {
    let mut machine = Machine::new(
        &Code::new().hlt(),
        Options {
            processors: 2,
            ..Default::default()
        },
    );
    let mut vp = machine.binders.remove(1).bind().unwrap();
    let kick = vp.kicker();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            kick.kick();
        });
        assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::Requested);
    });
}

#[test]
fn a_kick_before_the_run_counts() {
    let mut machine = Machine::new(&Code::new().inc_ebx().jmp(0), Options::default());
    let mut vp = machine.bsp();
    vp.kicker().kick();
    vp.kicker().kick();
    assert_eq!(vp.run(&Bus::default()).unwrap(), VpStop::Requested);
    assert_eq!(vp.registers().unwrap().rbx, 0);
}

/// Each kick waits for the run it stops: a lost one would hang here.
#[test]
fn no_kick_is_lost() {
    const ROUNDS: u32 = 10_000;
    // Exits to the VMM and none, so that kicks meet all parts of the loop.
    let code = Code::new()
        .mov_dx(0x1234)
        .inc_ebx()
        .out_dx_al()
        .inc_ebx()
        .inc_ebx()
        .jmp(3);
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp();
    let kick = vp.kicker();
    let stops = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                for _ in 0..round % 64 {
                    std::hint::spin_loop();
                }
                kick.kick();
                while stops.load(Ordering::Acquire) == round {
                    thread::yield_now();
                }
            }
        });
        let bus = Discard;
        for _ in 0..ROUNDS {
            assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
            stops.fetch_add(1, Ordering::Release);
        }
    });
}

/// Kicks that nobody waits for: there are never more stops than kicks, and the VP goes on in between.
#[test]
fn kicks_that_nobody_waits_for() {
    const KICKS: u32 = 10_000;
    let code = Code::new().mov_dx(0x1234).inc_ebx().out_dx_al().jmp(3);
    let mut machine = Machine::new(&code, Options::default());
    let mut vp = machine.bsp();
    let kick = vp.kicker();
    let over = AtomicBool::new(false);
    let stops = thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..KICKS {
                kick.kick();
            }
            over.store(true, Ordering::Release);
            kick.kick();
        });
        let mut stops = 0;
        // All kicks may be over before the first run, which the last one then stops.
        loop {
            assert_eq!(vp.run(&Discard).unwrap(), VpStop::Requested);
            stops += 1;
            if over.load(Ordering::Acquire) {
                break stops;
            }
        }
    });
    assert!((1..=KICKS + 1).contains(&stops), "{stops}");
}

/// A bus that keeps nothing.
struct Discard;

impl virt::IoBus for Discard {
    fn read_port(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn write_port(&self, _port: u16, _data: &[u8]) {}
    fn read_mmio(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn write_mmio(&self, _gpa: u64, _data: &[u8]) {}
    fn end_of_interrupt(&self, _vector: u8) {}
    fn read_msr(&self, _vp: virt::VpIndex, _index: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _vp: virt::VpIndex, _index: u32, _value: u64) -> Option<()> {
        None
    }
}
