//! Drives the devices with scripts of arbitrary operations, for fuzzing and tests.

use crate::debug_port::DebugPort;
use crate::i8042::I8042;
use crate::ioapic::IoApic;
use crate::ioapic::IoApicRouting;
use crate::ioapic::PINS;
use crate::pm::PmDevice;
use crate::pm::PmLayout;
use crate::pvpanic::PvPanic;
use crate::rtc::CMOS_SIZE;
use crate::rtc::Rtc;
use crate::rtc::WallClock;
use chipset_device::DeviceWaker;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::PowerSink;
use chipset_device::exercise::exercise;
use parking_lot::Mutex;
use serial_16550::SerialPort;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vmtime::VmClock;

/// A duration of 1 µs to about 36 minutes.
fn span(byte: u8) -> Duration {
    Duration::from_micros(1 << (byte >> 3))
}

fn ignoring_sink() -> PowerSink {
    PowerSink::new(|_| ())
}

/// An RTC, while time passes and the wall clock is set forward and back.
pub fn rtc(script: &[u8]) {
    let (clock, time) = VmClock::manual();
    clock.start();
    let jump = Arc::new(AtomicI64::new(0));
    let wall = {
        let (clock, jump) = (clock.clone(), jump.clone());
        WallClock::new(move || {
            let seconds = i128::from(jump.load(Ordering::Relaxed));
            seconds * 1_000_000_000 + i128::from(clock.now().as_nanos())
        })
    };
    let line = LineInterrupt::detached();
    let mut rtc = Rtc::new(line, &clock, wall, DeviceWaker::default(), &[0; CMOS_SIZE]);
    exercise(&mut rtc, script, &mut |byte| {
        if byte % 8 == 0 {
            jump.fetch_add(i64::from(byte as i8) << 26, Ordering::Relaxed);
        } else {
            time.advance(span(byte));
        }
    });
}

/// PM blocks of each layout, while time passes, the power button is pressed and events are signalled.
pub fn pm(script: &[u8]) {
    for layout in [PmLayout::Ich9, PmLayout::HyperV] {
        pm_of(layout, script);
    }
}

fn pm_of(layout: PmLayout, script: &[u8]) {
    let (clock, time) = VmClock::manual();
    clock.start();
    let (line, waker) = (LineInterrupt::detached(), DeviceWaker::default());
    let mut pm = PmDevice::new(0x600, layout, line, ignoring_sink(), &clock, waker);
    if script.len().is_multiple_of(2) {
        pm = pm.with_hibernation();
    }
    let control = pm.control();
    exercise(&mut pm, script, &mut |byte| match byte % 4 {
        0 => control.press_power_button(),
        1 => control.gpe(byte >> 2).pulse(),
        _ => time.advance(span(byte)),
    });
}

/// A keyboard controller.
pub fn i8042(script: &[u8]) {
    let mut controller = I8042::new(LineInterrupt::detached(), ignoring_sink());
    exercise(&mut controller, script, &mut |_| ());
}

/// A debug port without a backend.
pub fn debug_port(script: &[u8]) {
    let mut port = DebugPort::new(DebugPort::DEFAULT_PORT, SerialPort::new());
    exercise(&mut port, script, &mut |_| ());
}

/// The pvpanic device.
pub fn pvpanic(script: &[u8]) {
    let mut device = PvPanic::at_port(0x505, ignoring_sink());
    exercise(&mut device, script, &mut |_| ());
}

/// Checks that a pin that delivers has a route.
#[derive(Default)]
struct Routes(Mutex<[Option<MsiMessage>; PINS as usize]>);

impl IoApicRouting for Routes {
    fn set_route(&self, pin: u8, route: Option<MsiMessage>) {
        self.0.lock()[usize::from(pin)] = route;
    }

    fn assert(&self, pin: u8) -> bool {
        let route = self.0.lock()[usize::from(pin)];
        match route {
            Some(msi) => msi.data & 0x80 == 0,
            None => panic!("pin {pin} delivers without a route"),
        }
    }
}

/// An I/O APIC, while its pins change and its interrupts are ended.
pub fn ioapic(script: &[u8]) {
    let mut ioapic = IoApic::new(IoApic::DEFAULT_GPA, Arc::new(Routes::default()));
    let pins = ioapic.pins();
    // Most of the page is empty; use mostly the offsets of registers.
    let mut script = script.to_vec();
    for bytes in script.chunks_exact_mut(16) {
        bytes[2] &= 0x50;
        bytes[3] = 0;
    }
    exercise(&mut ioapic, &script, &mut |byte| match byte >> 6 {
        0 => pins.eoi(byte),
        level => pins.set_line((byte & 0x1f).into(), level == 1),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    fn run_random_scripts(exercise: fn(&[u8])) {
        for seed in 0..200 {
            let len = 1_500 + (seed as usize) % 2;
            exercise(&pseudo_random_script(seed, len));
        }
    }

    #[test]
    fn rtc_survives_random_scripts() {
        run_random_scripts(rtc);
    }

    #[test]
    fn pm_survives_random_scripts() {
        run_random_scripts(pm);
    }

    #[test]
    fn i8042_survives_random_scripts() {
        run_random_scripts(i8042);
    }

    #[test]
    fn debug_port_survives_random_scripts() {
        run_random_scripts(debug_port);
    }

    #[test]
    fn pvpanic_survives_random_scripts() {
        run_random_scripts(pvpanic);
    }

    #[test]
    fn ioapic_survives_random_scripts() {
        run_random_scripts(ioapic);
    }
}
