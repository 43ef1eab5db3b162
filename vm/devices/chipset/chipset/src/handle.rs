//! The handles of the devices.

use crate::debug_port::DebugPort;
use crate::i8042::I8042;
use crate::ioapic::IoApic;
use crate::ioapic::IoApicRouting;
use crate::pm::PmDevice;
use crate::pm::PmLayout;
use crate::pvpanic::PvPanic;
use crate::rtc::Rtc;
use crate::rtc::RtcBattery;
use crate::rtc::WallClock;
use crate::rtc::cmos_for_memory;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::InterruptLines;
use chipset_device::MachineContext;
use chipset_device::PowerSink;
use chipset_device::shared;
use minicbor::Decode;
use minicbor::Encode;
use serial_16550::SerialConnections;
use serial_16550::SerialEnd;
use std::sync::Arc;
use uuid::Uuid;
use vmtime::VmClock;

/// The I/O APIC, for a machine whose hypervisor has none, nor a PIC or a PIT.
///
/// It asks for `Arc<dyn IoApicRouting>`, and offers the machine's interrupt lines and its pins
/// ([`IoApicPins`](crate::ioapic::IoApicPins)).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IoApicHandle {}

impl DeviceHandle for IoApicHandle {
    const ID: &'static str = "ioapic";

    fn identity(&self, _name: &str, _vm: Uuid) -> Option<String> {
        Some("without PIC and PIT".to_owned())
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let routing = machine.get::<Arc<dyn IoApicRouting>>()?.clone();
        let ioapic = IoApic::new(IoApic::DEFAULT_GPA, routing);
        let lines = InterruptLines::new(Arc::new(ioapic.pins()));
        machine.services.offer(lines);
        machine.services.offer(ioapic.pins());
        Ok(shared(ioapic))
    }
}

/// The real-time clock. It asks for an interrupt line and the VM's clock, and for a [`RtcBattery`] if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RtcHandle {
    /// Its interrupt.
    #[n(1)]
    pub irq: u8,
    /// RAM below 4 GiB, in bytes, for the CMOS to tell of.
    #[n(2)]
    pub ram_below_4g: u64,
    /// RAM above 4 GiB, in bytes.
    #[n(3)]
    pub ram_above_4g: u64,
}

impl DeviceHandle for RtcHandle {
    const ID: &'static str = "rtc";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let mut rtc = Rtc::new(
            machine.line(self.irq.into())?,
            machine.get::<VmClock>()?,
            WallClock::host(),
            machine.waker.clone(),
            &cmos_for_memory(self.ram_below_4g, self.ram_above_4g),
        );
        if let Ok(battery) = machine.get::<RtcBattery>() {
            rtc = rtc.with_battery(battery.clone());
        }
        Ok(shared(rtc))
    }
}

/// The power-management block. It asks for an interrupt line, the power sink and the VM's clock, and offers its
/// control ([`PmControl`](crate::pm::PmControl)).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PmHandle {
    /// Its first I/O port.
    #[n(1)]
    pub base: u16,
    /// Its interrupt, the SCI.
    #[n(2)]
    pub irq: u8,
    /// Whether the guest can hibernate (ACPI S4).
    #[n(3)]
    pub offers_hibernation: bool,
    /// How the block is laid out.
    #[cbor(n(4), default)]
    pub layout: PmLayout,
}

/// There is no room for the power-management block.
#[derive(Debug, thiserror::Error)]
#[error("the power-management block at port {base:#x} ends above the last I/O port")]
struct PmBaseError {
    base: u16,
}

impl DeviceHandle for PmHandle {
    const ID: &'static str = "pm";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let base = self.base;
        if base.checked_add(self.layout.port_count()).is_none() {
            return Err(PmBaseError { base }.into());
        }
        let mut pm = PmDevice::new(
            base,
            self.layout,
            machine.line(self.irq.into())?,
            machine.get::<PowerSink>()?.clone(),
            machine.get::<VmClock>()?,
            machine.waker.clone(),
        );
        if self.offers_hibernation {
            pm = pm.with_hibernation();
        }
        machine.services.offer(pm.control());
        Ok(shared(pm))
    }
}

/// The keyboard controller. It asks for an interrupt line and the power sink.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct I8042Handle {
    /// The keyboard's interrupt.
    #[n(1)]
    pub irq: u8,
}

impl DeviceHandle for I8042Handle {
    const ID: &'static str = "i8042";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let line = machine.line(self.irq.into())?;
        Ok(shared(I8042::new(
            line,
            machine.get::<PowerSink>()?.clone(),
        )))
    }
}

/// The pvpanic device. It asks for the power sink.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PvPanicHandle {
    /// Its I/O port.
    #[n(1)]
    pub port: u16,
}

impl DeviceHandle for PvPanicHandle {
    const ID: &'static str = "pvpanic";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let power = machine.get::<PowerSink>()?.clone();
        Ok(shared(PvPanic::at_port(self.port, power)))
    }
}

/// The debug console. It asks for `Arc<SerialConnections>`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DebugPortHandle {
    /// Its I/O port.
    #[n(1)]
    pub port: u16,
    /// What its line is connected to.
    #[n(2)]
    pub end: SerialEnd,
}

impl DeviceHandle for DebugPortHandle {
    const ID: &'static str = "debug-port";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let connections = machine.get::<Arc<SerialConnections>>()?;
        let output = connections.connect(machine.name, &self.end)?;
        Ok(shared(DebugPort::new(self.port, output)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::payload;
    use std::fmt::Debug;

    /// The handle's identity, after it went through bytes.
    fn identity<H: DeviceHandle + PartialEq + Debug>(handle: &H) -> Option<String> {
        let decoded: H = payload::decode(&payload::encode(handle)).unwrap();
        assert_eq!(&decoded, handle);
        decoded.identity("x", Uuid::nil())
    }

    #[test]
    fn handles_survive_encoding_and_only_the_ioapic_has_an_identity() {
        let ioapic = identity(&IoApicHandle {});
        assert_eq!(ioapic.as_deref(), Some("without PIC and PIT"));
        let rtc = RtcHandle {
            irq: 8,
            ram_below_4g: 1 << 31,
            ram_above_4g: 1 << 33,
        };
        assert_eq!(identity(&rtc), None);
        let pm = PmHandle {
            base: 0x600,
            irq: 9,
            offers_hibernation: true,
            layout: PmLayout::HyperV,
        };
        assert_eq!(identity(&pm), None);
        // Without a layout, as it was encoded when there was only one.
        let old = payload::decode::<PmHandle>(&[0xa3, 1, 0x19, 6, 0, 2, 9, 3, 0xf5]).unwrap();
        let ich9 = PmHandle {
            layout: PmLayout::Ich9,
            ..pm
        };
        assert_eq!(old, ich9);
        assert_eq!(identity(&I8042Handle { irq: 1 }), None);
        assert_eq!(identity(&PvPanicHandle { port: 0x505 }), None);
        let debug_port = DebugPortHandle {
            port: 0x402,
            end: SerialEnd::Stderr,
        };
        assert_eq!(identity(&debug_port), None);
    }
}
