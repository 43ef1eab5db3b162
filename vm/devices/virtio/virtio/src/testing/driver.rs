//! A driver of a virtio device over PCI.

use crate::VirtioPciDevice;
use crate::testing::Ring;
use crate::testing::TestMachine;
use crate::testing::ring::must;
use chipset_device::ChipsetDevice;
use chipset_device::IoError;
use std::time::Duration;
use std::time::Instant;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// How long a device may take for what it was asked to do: longer than any machine needs.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) const BAR: u64 = 0xd000_0000;
pub(super) const MSIX_BAR: u64 = 0xd010_0000;

/// The start of guest RAM that [`GuestDriver::allocate`] allocates from.
pub(super) const FREE: u64 = 0x10_0000;

/// How a driver learns of used buffers.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Interrupts {
    /// It polls, as firmware does.
    Polled,
    /// By the interrupt pin and the ISR status.
    Pin,
    /// By MSI-X: vector 0 for the configuration, and vector N + 1 for queue N.
    Msix,
}

/// A driver of a virtio device over PCI. Its methods panic if the device misbehaves.
pub struct GuestDriver {
    /// The device.
    pub device: VirtioPciDevice,
    /// The queues' rings.
    pub rings: Vec<Ring>,
    pub(super) machine: TestMachine,
    interrupts: Interrupts,
    /// Addresses of the common, ISR, device and notification structures, by type.
    structures: [u64; 5],
    stride: u32,
    pub(super) next_free: u64,
}

impl GuestDriver {
    /// Starts `device`, assigns addresses to its BARs, and finds its structures.
    pub fn new(machine: &TestMachine, mut device: VirtioPciDevice) -> Self {
        device.start();
        let mut driver = Self {
            device,
            rings: Vec::new(),
            machine: machine.clone(),
            interrupts: Interrupts::Polled,
            structures: [0; 5],
            stride: 0,
            next_free: FREE,
        };
        driver.place_bars();
        let mut at = driver.read_pci(0x34) as u16 & 0xff;
        while at != 0 {
            let head = driver.read_pci(at);
            let kind = (head >> 24) as usize;
            if head & 0xff == 9 && kind < 5 {
                let bar = driver.read_pci(at + 4) & 0xff;
                assert_eq!(bar, 0);
                driver.structures[kind] = BAR + u64::from(driver.read_pci(at + 8));
                if kind == 2 {
                    driver.stride = driver.read_pci(at + 16);
                }
            }
            at = (head >> 8) as u16 & 0xff;
        }
        driver
    }

    /// Assigns addresses to the BARs, and lets the function decode them and access memory.
    pub(super) fn place_bars(&mut self) {
        self.write_pci(0x10, BAR as u32);
        self.write_pci(0x14, (BAR >> 32) as u32);
        self.write_pci(0x18, MSIX_BAR as u32);
        self.write_pci(0x1c, (MSIX_BAR >> 32) as u32);
        self.write_pci(0x04, 0x6);
    }

    /// Reads a register of the configuration space.
    pub fn read_pci(&mut self, offset: u16) -> u32 {
        must(ChipsetDevice::read_config(&mut self.device, offset))
    }

    /// Writes a register of the configuration space.
    pub fn write_pci(&mut self, offset: u16, value: u32) {
        must(ChipsetDevice::write_config(
            &mut self.device,
            offset,
            value,
            u32::MAX,
        ));
    }

    /// The offset of a capability in the configuration space.
    pub fn capability(&mut self, id: u8, kind: Option<u8>) -> u16 {
        let mut at = self.read_pci(0x34) as u16 & 0xff;
        while at != 0 {
            let head = self.read_pci(at);
            if head as u8 == id && kind.is_none_or(|kind| (head >> 24) as u8 == kind) {
                return at;
            }
            at = (head >> 8) as u16 & 0xff;
        }
        panic!("no capability {id:#x} {kind:?}");
    }

    fn read(&mut self, gpa: u64, len: usize) -> Result<u64, IoError> {
        let mut data = [0; 8];
        ChipsetDevice::read_mmio(&mut self.device, gpa, &mut data[..len])?;
        Ok(u64::from_le_bytes(data))
    }

    fn write(&mut self, gpa: u64, len: usize, value: u64) -> Result<(), IoError> {
        ChipsetDevice::write_mmio(&mut self.device, gpa, &value.to_le_bytes()[..len])
    }

    /// Reads a field of the common configuration.
    pub fn read_common(&mut self, offset: u64, len: usize) -> u64 {
        must(self.read(self.structures[1] + offset, len))
    }

    /// Writes a field of the common configuration.
    pub fn write_common(&mut self, offset: u64, len: usize, value: u64) {
        must(self.write(self.structures[1] + offset, len, value));
    }

    /// Reads a field of the device type's configuration.
    pub fn read_config(&mut self, offset: u64, len: usize) -> Result<u64, IoError> {
        self.read(self.structures[4] + offset, len)
    }

    /// Writes a field of the device type's configuration.
    pub fn write_config(&mut self, offset: u64, len: usize, value: u64) -> Result<(), IoError> {
        self.write(self.structures[4] + offset, len, value)
    }

    /// Reads the ISR status.
    pub fn read_isr(&mut self) -> u8 {
        must(self.read(self.structures[3], 1)) as u8
    }

    /// The device status.
    pub fn status(&mut self) -> u8 {
        self.read_common(0x14, 1) as u8
    }

    /// The features that the device offers.
    pub fn offered(&mut self) -> u64 {
        (0..2).fold(0, |features, select| {
            self.write_common(0x00, 4, select);
            features | self.read_common(0x04, 4) << (32 * select)
        })
    }

    /// Initializes the device (3.1.1) with those of `features` that it offers. Returns them.
    pub fn initialize(&mut self, features: u64, interrupts: Interrupts) -> u64 {
        self.reset();
        self.write_common(0x14, 1, 0x3);
        let features = self.offered() & features;
        for select in 0..2 {
            self.write_common(0x08, 4, select);
            let half = features >> (32 * select) & 0xffff_ffff;
            self.write_common(0x0c, 4, half);
        }
        self.write_common(0x14, 1, 0xb);
        assert_eq!(self.status(), 0xb, "the device refuses the features");
        self.interrupts = interrupts;
        if interrupts == Interrupts::Msix {
            self.enable_msix();
        }
        self.rings.clear();
        for index in 0..self.read_common(0x12, 2) as u16 {
            self.enable_queue(index);
        }
        self.write_common(0x14, 1, 0xf);
        features
    }

    /// Gives queue `index` new rings of its maximum size, and enables it.
    pub fn enable_queue(&mut self, index: u16) {
        self.write_common(0x16, 2, index.into());
        let size = self.read_common(0x18, 2) as u16;
        let gpa = self.allocate(Ring::footprint(size));
        let ring = Ring::new(&self.machine.memory, gpa, size);
        for (offset, address) in [
            (0x20, ring.descriptors),
            (0x28, ring.available),
            (0x30, ring.used),
        ] {
            self.write_common(offset, 4, address & 0xffff_ffff);
            self.write_common(offset + 4, 4, address >> 32);
        }
        if self.interrupts == Interrupts::Msix {
            self.write_common(0x1a, 2, u64::from(index) + 1);
            assert_eq!(self.read_common(0x1a, 2), u64::from(index) + 1);
        }
        self.write_common(0x1c, 2, 1);
        match self.rings.get_mut(usize::from(index)) {
            Some(old) => *old = ring,
            None => self.rings.push(ring),
        }
    }

    fn enable_msix(&mut self) {
        let capability = self.capability(0x11, None);
        let control = self.read_pci(capability) >> 16;
        for vector in 0..=u64::from(control & 0x7ff) {
            let entry = MSIX_BAR + 16 * vector;
            must(self.write(entry, 4, 0xfee0_0000));
            must(self.write(entry + 8, 4, 0x40 + vector));
            must(self.write(entry + 12, 4, 0));
        }
        self.write_pci(capability, 0x8000_0000);
        self.write_common(0x10, 2, 0);
    }

    /// Resets the device.
    pub fn reset(&mut self) {
        self.write_common(0x14, 1, 0);
        assert_eq!(self.status(), 0);
    }

    /// Allocates guest RAM that nothing else uses. Returns its GPA.
    pub fn allocate(&mut self, len: u64) -> u64 {
        let gpa = self.next_free;
        self.next_free = (gpa + len).next_multiple_of(64);
        gpa
    }

    /// Allocates guest RAM and copies `bytes` to it. Returns its GPA.
    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let gpa = self.allocate(bytes.len() as u64);
        must(
            self.machine
                .memory
                .map()
                .write_slice(bytes, GuestAddress(gpa)),
        );
        gpa
    }

    /// Reads bytes from guest RAM.
    pub fn fetch(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        must(
            self.machine
                .memory
                .map()
                .read_slice(&mut bytes, GuestAddress(gpa)),
        );
        bytes
    }

    /// Publishes what was added to queue `index`, and notifies the device by its doorbell.
    pub fn notify(&mut self, index: u16) {
        self.rings[usize::from(index)].publish();
        let gpa = self.notify_address(index);
        assert!(self.machine.ring_doorbell(gpa), "no doorbell at {gpa:#x}");
    }

    /// Publishes what was added to queue `index`, and notifies the device by a write to its BAR.
    pub fn notify_by_write(&mut self, index: u16) {
        self.rings[usize::from(index)].publish();
        let gpa = self.notify_address(index);
        must(self.write(gpa, 2, index.into()));
    }

    fn notify_address(&mut self, index: u16) -> u64 {
        self.write_common(0x16, 2, index.into());
        let offset = self.read_common(0x1e, 2);
        self.structures[2] + offset * u64::from(self.stride)
    }

    /// Waits until `condition` returns a value.
    pub fn wait_until<T>(&mut self, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "timed out waiting for the device"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until queue `index` has interrupted the driver, in the chosen way.
    pub fn wait_for_interrupt(&mut self, index: u16) {
        self.wait_until(|driver| {
            let interrupted = match driver.interrupts {
                Interrupts::Polled => true,
                Interrupts::Pin => driver.machine.line_is_high() && driver.read_isr() & 1 != 0,
                Interrupts::Msix => driver.machine.take_msi(index + 1),
            };
            interrupted.then_some(())
        });
    }

    /// Waits for the next chain that the device uses in queue `index`. Returns its head and the number of bytes
    /// written.
    pub fn wait_for_used(&mut self, index: u16) -> (u16, u32) {
        self.wait_until(|driver| driver.rings[usize::from(index)].take_used())
    }

    /// Waits until the device says that it needs a reset.
    pub fn wait_for_needs_reset(&mut self) {
        self.wait_until(|driver| (driver.status() & 0x40 != 0).then_some(()));
    }
}
