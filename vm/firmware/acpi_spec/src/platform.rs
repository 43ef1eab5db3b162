//! The description of the platform that the tables are built from.

use crate::AcpiError;
use std::collections::BTreeSet;
use std::ops::Range;
use std::ops::RangeInclusive;

/// The PCI configuration ports, which are never in a window of the root bridge.
pub(crate) const PCI_CONFIG_PORTS: RangeInclusive<u16> = 0xcf8..=0xcff;

/// The size of one bus in an ECAM, in bytes.
pub(crate) const ECAM_PER_BUS: u64 = 1 << 20;

/// The number of interrupts that the pins of PCI devices are spread over.
pub(crate) const PCI_GSIS: u32 = 8;

/// The number of ports in the power-management block.
const PM_BLOCK_LEN: u16 = 0x80;

const FOUR_GIB: u64 = 1 << 32;

/// The maximum number of processors: the tables name them (`\_SB.C000` to `\_SB.CFFF`).
pub(crate) const MAX_PROCESSORS: usize = 0x1000;

/// A platform as its operating system sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiPlatform {
    /// The processors, boot processor first.
    pub processors: Vec<Processor>,
    /// The interrupt controllers besides the local APICs.
    pub interrupt_controllers: InterruptControllers,
    /// First port of the power-management block, which is laid out as on ICH9: PM1 events at +0, PM1 control
    /// at +4, the timer at +8, GPE0 with 64 events at +0x20.
    pub pm_base: u16,
    /// The reset register.
    pub reset: ResetRegister,
    /// The system control interrupt: an ISA interrupt, level-triggered and active high.
    pub sci_irq: u8,
    /// Whether the operating system is offered sleep state S4.
    pub s4: S4Support,
    /// The port that `_PTS` and `_WAK` write to.
    pub sleep_announcements: Option<SleepAnnouncements>,
    /// The 16550 serial ports.
    pub com_ports: Vec<ComPort>,
    /// The MC146818-compatible real-time clock.
    pub rtc: Option<RtcResources>,
    /// The keyboard controller.
    pub ps2: Option<Ps2Controller>,
    /// The port of the pvpanic device.
    pub pvpanic_port: Option<u16>,
    /// The PCI root bridge.
    pub pci: Option<PciRoot>,
    /// The general-purpose event (0 to 15) of the generation ID device, if there is one. The tables then need a
    /// firmware that runs a table-loader script, which allocates the memory of the ID.
    pub generation_id_event: Option<u8>,
}

impl AcpiPlatform {
    /// A platform with these processors, an I/O APIC and a power-management block at port 0x400, and no devices.
    pub fn bare(processors: Vec<Processor>) -> Self {
        Self {
            processors,
            interrupt_controllers: InterruptControllers::IoApic,
            pm_base: 0x400,
            reset: ResetRegister {
                port: 0x433,
                value: 1,
            },
            sci_irq: 9,
            s4: S4Support::NotOffered,
            sleep_announcements: None,
            com_ports: Vec::new(),
            rtc: None,
            ps2: None,
            pvpanic_port: None,
            pci: None,
            generation_id_event: None,
        }
    }
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
pub enum S4Support {
    /// There is no `_S4`. The guest can still write a hibernation image and power off.
    NotOffered,
    /// `_S4` names sleep type 1 (`_S5` names 0).
    Offered,
}

/// The port and value that reset the machine.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ResetRegister {
    /// The I/O port, one byte wide.
    pub port: u16,
    /// The value to write.
    pub value: u8,
}

/// A byte-wide I/O port to which `_PTS` and `_WAK` write the sleep state they were called for (1 to 5) in the low
/// four bits, and a flag that says which method it was.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct SleepAnnouncements {
    /// The port.
    pub port: u16,
    /// The flag of `_PTS`: one or more of the high four bits.
    pub prepare: u8,
    /// The flag of `_WAK`: one or more of the high four bits.
    pub wake: u8,
}

/// A PCI root bridge on segment 0, with bus 0 beneath it.
///
/// Pin p of device d (INTA is 0) is interrupt `first_gsi + (d + p) % 8`, level-triggered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciRoot {
    /// The highest bus number.
    pub last_bus: u8,
    /// The guest-physical address of the memory-mapped configuration space (ECAM) of bus 0, if there is one:
    /// 1 MiB for each bus, below 4 GiB.
    pub ecam: Option<u64>,
    /// The port windows for BARs of functions.
    pub io: Vec<RangeInclusive<u16>>,
    /// The address windows for BARs of functions.
    pub mmio: MmioWindows,
    /// The lowest of the eight GSIs that the pins are routed to.
    pub first_gsi: u32,
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
pub struct RtcResources {
    /// The index port; the data port follows.
    pub base: u16,
    /// Its ISA interrupt.
    pub irq: u8,
    /// The CMOS index of the century, if there is one.
    pub century_index: Option<u8>,
}

/// The 8042 keyboard controller, at ports 0x60 and 0x64, with a keyboard and no mouse.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Ps2Controller {
    /// The keyboard's ISA interrupt.
    pub keyboard_irq: u8,
}

/// Ranges of guest-physical addresses for BARs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MmioWindows {
    /// The window below 4 GiB.
    pub low: Option<Range<u64>>,
    /// The window above RAM.
    pub high: Option<Range<u64>>,
}

impl AcpiPlatform {
    /// Refuses a platform that the tables cannot describe.
    pub(crate) fn validate(&self) -> Result<(), AcpiError> {
        if self.processors.is_empty() {
            return Err(AcpiError::NoProcessors);
        }
        if self.processors.len() > MAX_PROCESSORS {
            return Err(AcpiError::TooManyProcessors {
                count: self.processors.len(),
            });
        }
        let mut uids = BTreeSet::new();
        let mut apic_ids = BTreeSet::new();
        for p in &self.processors {
            if p.uid == u32::MAX || !uids.insert(p.uid) {
                return Err(AcpiError::ProcessorUid { uid: p.uid });
            }
            if p.apic_id == u32::MAX || !apic_ids.insert(p.apic_id) {
                return Err(AcpiError::ApicId { apic_id: p.apic_id });
            }
        }
        ports("the power-management block", self.pm_base, PM_BLOCK_LEN)?;
        irq("the system control interrupt", self.sci_irq)?;
        let mut numbers = BTreeSet::new();
        for com in &self.com_ports {
            if !(1..=4).contains(&com.number) || !numbers.insert(com.number) {
                return Err(AcpiError::ComNumber { number: com.number });
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
        }
        if let Some(pci) = &self.pci {
            pci.validate()?;
        }
        if let Some(SleepAnnouncements { prepare, wake, .. }) = self.sleep_announcements {
            let distinct = prepare & 0xf == 0 && wake & 0xf == 0 && prepare != wake;
            if !distinct || prepare == 0 || wake == 0 {
                return Err(AcpiError::SleepAnnouncements { prepare, wake });
            }
        }
        match self.generation_id_event {
            Some(event) if event > 15 => Err(AcpiError::Event { event }),
            _ => Ok(()),
        }
    }
}

impl MmioWindows {
    fn validate(&self) -> Result<(), AcpiError> {
        for window in [&self.low, &self.high].into_iter().flatten() {
            if window.is_empty() || window.start % 4096 != 0 || window.end % 4096 != 0 {
                return Err(AcpiError::MmioWindow {
                    start: window.start,
                    end: window.end,
                });
            }
        }
        Ok(())
    }
}

impl PciRoot {
    /// The addresses of the ECAM.
    pub(crate) fn ecam_range(&self) -> Option<Range<u64>> {
        let base = self.ecam?;
        Some(base..base.saturating_add((u64::from(self.last_bus) + 1) * ECAM_PER_BUS))
    }

    fn validate(&self) -> Result<(), AcpiError> {
        self.mmio.validate()?;
        if let Some(low) = &self.mmio.low
            && low.end > FOUR_GIB
        {
            return Err(AcpiError::PciLowWindow { end: low.end });
        }
        if let Some(ecam) = self.ecam_range()
            && (ecam.end > FOUR_GIB || !ecam.start.is_multiple_of(ECAM_PER_BUS))
        {
            return Err(AcpiError::Ecam { base: ecam.start });
        }
        for window in &self.io {
            let clear =
                window.end() < PCI_CONFIG_PORTS.start() || window.start() > PCI_CONFIG_PORTS.end();
            if window.is_empty() || !clear {
                return Err(AcpiError::IoWindow {
                    first: *window.start(),
                    last: *window.end(),
                });
            }
        }
        match self.first_gsi.checked_add(PCI_GSIS - 1) {
            Some(_) => Ok(()),
            None => Err(AcpiError::PciInterrupts {
                first: self.first_gsi,
            }),
        }
    }
}

fn ports(device: &'static str, base: u16, len: u16) -> Result<(), AcpiError> {
    match base.checked_add(len - 1) {
        Some(_) => Ok(()),
        None => Err(AcpiError::Ports { device, base, len }),
    }
}

fn irq(device: &'static str, irq: u8) -> Result<(), AcpiError> {
    if irq < 16 {
        Ok(())
    } else {
        Err(AcpiError::Irq { device, irq })
    }
}

#[cfg(test)]
#[path = "platform_test.rs"]
pub(crate) mod tests;
