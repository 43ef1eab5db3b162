//! What the tables say: a plain description of the machine.

use crate::BuildError;
use std::collections::BTreeSet;
use std::ops::Range;

/// The ports of the power-management block, from its base to the last register the tables name.
const PM_BLOCK_LEN: u16 = 0x37;

/// The most processors the tables can name (`\_SB.C000` to `\_SB.CFFF`).
pub(crate) const MAX_PROCESSORS: usize = 0x1000;

/// A machine, as its operating system is to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The processors, boot processor first.
    pub processors: Vec<Processor>,
    /// Which interrupt controllers there are besides the local APICs.
    pub interrupt_controllers: InterruptControllers,
    /// First port of the power-management block: PM1 events at +0, PM1 control at +4, the timer at +8,
    /// GPE0 at +0xC and the reset register at +0x33.
    pub pm_base: u16,
    /// The system control interrupt: an ISA interrupt, level-triggered and active high.
    pub sci_irq: u8,
    /// Whether the machine can save itself to disk.
    pub hibernation: Hibernation,
    /// The 16550 serial ports.
    pub com_ports: Vec<ComPort>,
    /// The MC146818-compatible real-time clock.
    pub rtc: Option<Rtc>,
    /// The keyboard controller.
    pub ps2: Option<Ps2Controller>,
    /// The port of the pvpanic device.
    pub pvpanic_port: Option<u16>,
    /// Where devices' registers may lie.
    pub mmio: MmioWindows,
}

/// A processor.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Processor {
    /// The ACPI processor UID that ties the MADT's entry to the DSDT's device.
    pub uid: u32,
    /// The (x2)APIC id.
    pub apic_id: u32,
}

/// The interrupt controllers of the chipset.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum InterruptControllers {
    /// An I/O APIC only.
    IoApic,
    /// An I/O APIC, the two 8259 PICs, and a PIT whose interrupt 0 arrives at I/O APIC input 2.
    IoApicAndPic,
}

/// Whether the operating system is offered sleep state S4.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Hibernation {
    /// There is no S4. The guest can still write an image and power off.
    NotOffered,
    /// S4 is entered with sleep type 1 (S5 with 0).
    S4,
}

/// A 16550 serial port.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ComPort {
    /// 1 to 4 for COM1 to COM4.
    pub number: u8,
    /// First of eight ports.
    pub base: u16,
    /// Its ISA interrupt. Ports may share one.
    pub irq: u8,
}

/// The real-time clock.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Rtc {
    /// The index port; the data port follows.
    pub base: u16,
    /// Its ISA interrupt.
    pub irq: u8,
    /// The index in the CMOS that holds the century, if one does.
    pub century_index: Option<u8>,
}

/// The 8042 keyboard controller, at ports 0x60 and 0x64.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Ps2Controller {
    /// The keyboard's ISA interrupt.
    pub keyboard_irq: u8,
    /// The mouse's ISA interrupt, if there is a mouse.
    pub mouse_irq: Option<u8>,
}

/// Ranges of guest-physical addresses given to devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MmioWindows {
    /// The window below 4 GiB.
    pub low: Option<Range<u64>>,
    /// The window above RAM.
    pub high: Option<Range<u64>>,
}

impl Machine {
    /// Refuses descriptions that no table can express.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        if self.processors.is_empty() {
            return Err(BuildError::NoProcessors);
        }
        if self.processors.len() > MAX_PROCESSORS {
            return Err(BuildError::TooManyProcessors {
                count: self.processors.len(),
            });
        }
        let mut uids = BTreeSet::new();
        let mut apic_ids = BTreeSet::new();
        for p in &self.processors {
            if p.uid == u32::MAX || !uids.insert(p.uid) {
                return Err(BuildError::ProcessorUid { uid: p.uid });
            }
            if p.apic_id == u32::MAX || !apic_ids.insert(p.apic_id) {
                return Err(BuildError::ApicId { apic_id: p.apic_id });
            }
        }
        ports("the power-management block", self.pm_base, PM_BLOCK_LEN)?;
        irq("the system control interrupt", self.sci_irq)?;
        let mut numbers = BTreeSet::new();
        for com in &self.com_ports {
            if !(1..=4).contains(&com.number) || !numbers.insert(com.number) {
                return Err(BuildError::ComNumber { number: com.number });
            }
            ports("a serial port", com.base, 8)?;
            irq("a serial port", com.irq)?;
        }
        if let Some(rtc) = &self.rtc {
            ports("the real-time clock", rtc.base, 2)?;
            irq("the real-time clock", rtc.irq)?;
        }
        if let Some(ps2) = &self.ps2 {
            irq("the keyboard", ps2.keyboard_irq)?;
            if let Some(mouse) = ps2.mouse_irq {
                irq("the mouse", mouse)?;
            }
        }
        for window in [&self.mmio.low, &self.mmio.high].into_iter().flatten() {
            if window.is_empty() || window.start % 4096 != 0 || window.end % 4096 != 0 {
                return Err(BuildError::MmioWindow {
                    start: window.start,
                    end: window.end,
                });
            }
        }
        Ok(())
    }
}

fn ports(device: &'static str, base: u16, len: u16) -> Result<(), BuildError> {
    match base.checked_add(len - 1) {
        Some(_) => Ok(()),
        None => Err(BuildError::Ports { device, base, len }),
    }
}

fn irq(device: &'static str, irq: u8) -> Result<(), BuildError> {
    if irq < 16 {
        Ok(())
    } else {
        Err(BuildError::Irq { device, irq })
    }
}
