//! The GSI routing table: what each interrupt raises.
//!
//! KVM takes the table as a whole. GSIs 0 to 23 are the pins of the interrupt controllers: of KVM's own,
//! or in split mode the MSIs that the VMM's IOAPIC has for them. Those above are given out to MSI vectors.

use crate::capabilities::IOAPIC_PINS;
use chipset_device::MsiMessage;
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use virt::Error;
use virt::IrqchipMode;

/// The routing table of one VM.
pub(crate) struct Routing {
    table: Mutex<Table>,
}

struct Table {
    /// The pins of KVM's own interrupt controllers.
    irqchip: Vec<Entry>,
    /// The entries that are kept for the pins of the interrupt controllers.
    pins: u32,
    /// By GSI: one that was given out, and its MSI once it has one.
    msis: BTreeMap<u32, Option<MsiMessage>>,
    /// The number of entries of KVM's table.
    max: u32,
}

/// One destination of a GSI.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Entry {
    /// To a pin of one of KVM's own chips.
    Pin {
        gsi: u32,
        chip: u32,
        pin: u32,
    },
    Msi {
        gsi: u32,
        msi: MsiMessage,
    },
}

impl Entry {
    fn to_kvm(self) -> kvm_irq_routing_entry {
        let mut entry = kvm_irq_routing_entry::default();
        match self {
            Self::Pin { gsi, chip, pin } => {
                entry.gsi = gsi;
                entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
                entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: chip, pin };
            }
            Self::Msi { gsi, msi } => {
                entry.gsi = gsi;
                entry.type_ = KVM_IRQ_ROUTING_MSI;
                entry.u.msi = kvm_irq_routing_msi {
                    address_lo: msi.address as u32,
                    address_hi: (msi.address >> 32) as u32,
                    data: msi.data,
                    ..Default::default()
                };
            }
        }
        entry
    }
}

/// The wiring of a PC: PIC inputs are GSIs 0 to 15, and IOAPIC pins are the GSIs of the same number, except that the
/// PIT (GSI 0) is on IOAPIC pin 2, where the PICs' cascade would be.
fn pc_wiring() -> Vec<Entry> {
    let pin = |gsi, chip, pin| Entry::Pin { gsi, chip, pin };
    let primary = (0..8).map(|gsi| pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    let secondary = (8..16).map(|gsi| pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    let ioapic = (0..IOAPIC_PINS).filter(|&gsi| gsi != 2).map(|gsi| {
        let input = if gsi == 0 { 2 } else { gsi };
        pin(gsi, KVM_IRQCHIP_IOAPIC, input)
    });
    primary.chain(secondary).chain(ioapic).collect()
}

/// The entries that are kept for the pins of the interrupt controllers.
fn pins(irqchip: IrqchipMode) -> u32 {
    match irqchip {
        IrqchipMode::Kernel => pc_wiring().len() as u32,
        // Each pin of the VMM's IOAPIC can have an MSI.
        IrqchipMode::Split => IOAPIC_PINS,
    }
}

/// How many GSIs can be given out if KVM's table has `max` entries.
pub(crate) fn max_msi_vectors(irqchip: IrqchipMode, max: u32) -> u32 {
    max.saturating_sub(pins(irqchip))
}

impl Table {
    fn entries(&self) -> Vec<Entry> {
        let msis = self.msis.iter();
        let msis = msis.filter_map(|(&gsi, msi)| msi.map(|msi| Entry::Msi { gsi, msi }));
        self.irqchip.iter().copied().chain(msis).collect()
    }

    /// The lowest GSI that no pin and no route has, if KVM's table has room for it beside all that were given out:
    /// each of them can have an entry at the same time.
    fn allocate(&mut self) -> Result<u32, Error> {
        let (pins, max) = (self.pins, self.max);
        let taken = self.msis.range(IOAPIC_PINS..).count() as u32;
        let free = (IOAPIC_PINS..max).find(|gsi| !self.msis.contains_key(gsi));
        let gsi = free.filter(|_| pins + taken < max).ok_or_else(|| {
            Error::InvalidRequest(format!(
                "no interrupt route is left for another MSI-X vector: KVM has {max}, of which the interrupt controllers \
                 take {pins} and other vectors {taken}; give the devices fewer queues, or use fewer devices"
            ))
        })?;
        self.msis.insert(gsi, None);
        Ok(gsi)
    }
}

fn write(vm: &VmFd, table: &Table) -> Result<(), Error> {
    let entries: Vec<_> = table.entries().into_iter().map(Entry::to_kvm).collect();
    let routing = KvmIrqRouting::from_entries(&entries)
        .map_err(|_| Error::InvalidRequest(format!("{} interrupt routes", entries.len())))?;
    vm.set_gsi_routing(&routing)
        .map_err(|e| Error::call("write the interrupt routing table", e))
}

impl Routing {
    pub(crate) fn new(irqchip: IrqchipMode, max: u32) -> Self {
        Self {
            table: Mutex::new(Table {
                irqchip: match irqchip {
                    IrqchipMode::Kernel => pc_wiring(),
                    IrqchipMode::Split => Vec::new(),
                },
                pins: pins(irqchip),
                msis: BTreeMap::new(),
                max,
            }),
        }
    }

    /// Hands KVM the table as it is.
    pub(crate) fn commit(&self, vm: &VmFd) -> Result<(), Error> {
        write(vm, &self.table.lock())
    }

    /// Makes GSI `gsi` raise `msi`, or nothing. The table is as before if that fails.
    pub(crate) fn set(&self, vm: &VmFd, gsi: u32, msi: Option<MsiMessage>) -> Result<(), Error> {
        let mut table = self.table.lock();
        let before = table.msis.insert(gsi, msi);
        if before.flatten() == msi {
            return Ok(());
        }
        let result = write(vm, &table);
        if result.is_err() {
            match before {
                Some(before) => table.msis.insert(gsi, before),
                None => table.msis.remove(&gsi),
            };
        }
        result
    }

    /// Gives out a GSI.
    pub(crate) fn allocate(&self) -> Result<u32, Error> {
        self.table.lock().allocate()
    }

    /// Takes a GSI back.
    pub(crate) fn release(&self, vm: &VmFd, gsi: u32) {
        let mut table = self.table.lock();
        if table.msis.remove(&gsi).flatten().is_some()
            && let Err(error) = write(vm, &table)
        {
            tracing::warn!(gsi, %error, "failed to remove an interrupt route");
        }
    }

    /// How many GSIs are given out.
    pub(crate) fn used(&self) -> usize {
        self.table.lock().msis.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pc_wiring_stays_when_msis_are_added() {
        let routing = Routing::new(IrqchipMode::Kernel, 64);
        let mut table = routing.table.lock();
        let wired = table.entries();
        // 16 PIC inputs; 24 IOAPIC pins but for GSI 2, whose pin the timer has.
        assert_eq!(wired.len(), 16 + 23);
        let pin = |gsi, chip, pin| Entry::Pin { gsi, chip, pin };
        assert!(wired.contains(&pin(0, KVM_IRQCHIP_IOAPIC, 2)));
        assert!(wired.contains(&pin(9, KVM_IRQCHIP_PIC_SLAVE, 1)));
        let gsi = table.allocate().unwrap();
        assert_eq!(gsi, 24);
        assert_eq!(table.entries(), wired, "no entry before there is an MSI");
        let msi = MsiMessage {
            address: 0x1234_5678_fee0_1000,
            data: 0x41,
        };
        table.msis.insert(gsi, Some(msi));
        let entries = table.entries();
        assert_eq!(entries[..wired.len()], wired);
        assert_eq!(entries[wired.len()], Entry::Msi { gsi: 24, msi });
    }

    #[test]
    fn gsis_run_out_and_are_reused() {
        let routing = Routing::new(IrqchipMode::Split, 26);
        // The pins' entries do not change how many are left.
        routing.table.lock().msis.insert(23, None);
        assert_eq!(routing.allocate().unwrap(), 24);
        assert_eq!(routing.allocate().unwrap(), 25);
        assert!(matches!(routing.allocate(), Err(Error::InvalidRequest(_))));
        routing.table.lock().msis.remove(&24);
        assert_eq!(routing.allocate().unwrap(), 24);
    }

    /// All that were given out can be used at once.
    #[test]
    fn no_more_gsis_are_given_out_than_kvm_has_entries() {
        for (irqchip, pins) in [(IrqchipMode::Kernel, 39), (IrqchipMode::Split, 24)] {
            let msi = Some(MsiMessage {
                address: 0xfee0_0000,
                data: 0x41,
            });
            let routing = Routing::new(irqchip, 4096);
            let mut table = routing.table.lock();
            let gsis: Vec<_> = std::iter::from_fn(|| table.allocate().ok()).collect();
            assert_eq!(gsis.len(), 4096 - pins);
            assert_eq!(max_msi_vectors(irqchip, 4096) as usize, gsis.len());
            for gsi in gsis {
                table.msis.insert(gsi, msi);
            }
            if irqchip == IrqchipMode::Split {
                table.msis.extend((0..24).map(|pin| (pin, msi)));
            }
            assert_eq!(table.entries().len(), 4096);
            let error = table.allocate().unwrap_err().to_string();
            assert!(error.contains("KVM has 4096"), "{error}");
            assert!(error.contains(&format!("take {pins} and")), "{error}");
        }
    }
}
