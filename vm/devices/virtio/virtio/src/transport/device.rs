use crate::Activation;
use crate::DeviceInfo;
use crate::DeviceSignals;
use crate::Event;
use crate::QueueStats;
use crate::VirtQueue;
use crate::VirtioDevice;
use crate::queue::QueueParts;
use crate::registers::EVENT_IDX;
use crate::registers::NEEDS_RESET;
use crate::registers::Registers;
use crate::registers::Request;
use crate::registers::TRANSPORT_FEATURES;
use crate::transport::function;
use crate::transport::function::FunctionSink;
use crate::transport::function::NOTIFY_STRIDE;
use crate::transport::function::PAGE;
use crate::transport::function::SharedFunction;
use crate::transport::function::TransportError;
use crate::transport::state::DeviceState;
use crate::transport::state::RegistersState;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::MmioDevice;
use chipset_device::MsiTarget;
use chipset_device::PciAddress;
use chipset_device::PciConfigDevice;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
use pci_core::ConfigChange;
use pci_core::Location;
use serde_json::json;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a virtio device is plugged in.
pub struct PciSlot<'a> {
    /// What logs call the device.
    pub name: String,
    /// Where the PCI function is.
    pub address: PciAddress,
    /// What else there is at its device number.
    pub siblings: Siblings,
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// Where MSI-X goes.
    pub msi: &'a dyn MsiTarget,
    /// Where INTx goes. Without, the pin ends nowhere.
    pub line: Option<LineInterrupt>,
    /// What makes notifications events.
    pub doorbells: Arc<dyn DoorbellTarget>,
    /// What learns where the BARs are.
    pub decoder: AddressDecoder,
}

/// Whether a PCI function shares its device number with others. Guests look for those only if function 0 says so.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Siblings {
    /// There are none.
    Alone,
    /// There are.
    More,
}

/// A virtio device that is a PCI function (4.1).
pub struct VirtioPciDevice {
    address: PciAddress,
    device: Box<dyn VirtioDevice>,
    info: DeviceInfo,
    memory: GuestMemory,
    registers: Registers,
    signals: DeviceSignals,
    function: Arc<SharedFunction>,
    /// The capability for access through the configuration space (4.1.4.9).
    window: u16,
    queues: Vec<QueueEnds>,
    doorbell_target: Arc<dyn DoorbellTarget>,
    /// Where the BAR was when the doorbells were made.
    doorbell_base: Option<u64>,
    doorbells: Vec<Box<dyn Doorbell>>,
    /// A doorbell could not be had, and a warning says so; guests move BARs as often as they like.
    doorbell_failed: bool,
    /// VPs run.
    started: bool,
    /// The device type has the queues.
    active: bool,
}

/// What there is of a queue whether it is enabled or not.
struct QueueEnds {
    kick: Arc<Event>,
    stats: Arc<QueueStats>,
}

impl VirtioPciDevice {
    /// Plugs in `device`.
    pub fn new(device: impl VirtioDevice, mut slot: PciSlot<'_>) -> Result<Self, TransportError> {
        let info = device.info();
        let (pci, window) = function::build(&info, &mut slot)?;
        let queues = info.queue_sizes.iter().map(|_| {
            Ok(QueueEnds {
                kick: Arc::new(Event::new()?),
                stats: Arc::default(),
            })
        });
        let queues: Result<Vec<_>, std::io::Error> = queues.collect();
        let queues = queues.map_err(|source| TransportError::Event {
            name: slot.name.clone(),
            source,
        })?;
        let offered = info.features | TRANSPORT_FEATURES;
        let registers = Registers::new(offered, pci.msix_vectors(), &info.queue_sizes);
        let function = SharedFunction::new(pci, queues.len());
        Ok(Self {
            address: slot.address,
            device: Box::new(device),
            info,
            memory: slot.memory.clone(),
            registers,
            signals: DeviceSignals::new(slot.name, FunctionSink(function.clone())),
            function,
            window,
            queues,
            doorbell_target: slot.doorbells,
            doorbell_base: None,
            doorbells: Vec::new(),
            doorbell_failed: false,
            started: false,
            active: false,
        })
    }

    /// The device's signals, for what changes its configuration from outside.
    pub fn signals(&self) -> &DeviceSignals {
        &self.signals
    }

    /// Puts the device type to work, or to rest, as the state of everything asks for.
    ///
    /// A function that may not access memory (bus mastering is off) rests: a kernel that is about to
    /// hand over memory to another relies on it.
    fn settle(&mut self) {
        let work =
            self.started && self.registers.driver_ok() && self.function.lock().pci.is_bus_master();
        if !work {
            self.rest();
        } else if !self.active && !self.signals.needs_reset() {
            self.work();
        }
    }

    fn work(&mut self) {
        let features = self.registers.driver_features;
        let mut queues = Vec::new();
        let ends = self.queues.iter().zip(&self.registers.queues);
        for (index, (ends, registers)) in ends.enumerate() {
            if !registers.enabled {
                continue;
            }
            let parts = QueueParts {
                index: index as u16,
                memory: self.memory.clone(),
                kick: ends.kick.clone(),
                signals: self.signals.clone(),
                stats: ends.stats.clone(),
            };
            match VirtQueue::new(parts, &registers.layout, features & EVENT_IDX != 0) {
                Ok(queue) => queues.push(queue),
                Err(error) => return self.signals.fail(&error),
            }
        }
        let activation = Activation {
            features,
            queues,
            signals: self.signals.clone(),
        };
        match self.device.activate(activation) {
            Ok(()) => self.active = true,
            Err(error) => self.signals.fail(&error),
        }
    }

    fn rest(&mut self) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        for mut queue in self.device.deactivate() {
            // A worker that stopped between completing and interrupting left that over.
            if let Err(error) = queue.interrupt() {
                queue.fail(&error);
            }
            if let Some(registers) = self.registers.queues.get_mut(usize::from(queue.index())) {
                registers.layout = queue.layout();
            }
        }
    }

    /// What the driver can reset: everything but the PCI function.
    fn reset_virtio(&mut self) {
        self.rest();
        self.device.reset();
        self.registers.reset();
        self.signals.set_needs_reset(false);
        self.apply_vectors();
        self.function.lock().take_isr();
    }

    fn apply_vectors(&self) {
        let function = &self.function;
        function.set_vector(None, self.registers.config_vector);
        for (index, queue) in self.registers.queues.iter().enumerate() {
            function.set_vector(Some(index as u16), queue.vector);
        }
    }

    /// Moves the doorbells to where the BAR is now.
    fn move_doorbells(&mut self) {
        let base = self.function.lock().pci.memory_base(function::BAR);
        if base == self.doorbell_base {
            return;
        }
        self.doorbells.clear();
        self.doorbell_base = base;
        let Some(base) = base else {
            return;
        };
        for (index, queue) in self.queues.iter().enumerate() {
            let gpa = base + function::NOTIFY * PAGE + index as u64 * NOTIFY_STRIDE;
            let registered = self.doorbell_target.register(
                DoorbellAddress::Gpa(gpa),
                DoorbellMatch::Any,
                queue.kick.as_fd(),
            );
            match registered {
                Ok(doorbell) => self.doorbells.push(doorbell),
                Err(error) => {
                    // Notifications reach the device as writes then.
                    let device = self.signals.name();
                    if std::mem::replace(&mut self.doorbell_failed, true) {
                        tracing::debug!(device, gpa, %error, "failed to register a doorbell");
                    } else {
                        tracing::warn!(device, gpa, %error, "failed to register a doorbell");
                    }
                }
            }
        }
    }

    fn read_structure(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        let (page, at) = (offset / PAGE, offset % PAGE);
        let value = match page {
            function::COMMON => {
                let (signals, len) = (&self.signals, data.len());
                let (generation, needs_reset) = (signals.generation(), signals.needs_reset());
                self.registers.read(at, len, generation, needs_reset)?
            }
            function::ISR if at == 0 => self.function.lock().take_isr().into(),
            function::DEVICE => {
                self.check_config(at, data.len())?;
                self.device.read_config(at as u32, data);
                return Ok(());
            }
            // Notification addresses have nothing to read.
            function::NOTIFY => 0,
            _ => return Err(IoError::InvalidRegister),
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
        Ok(())
    }

    fn write_structure(&mut self, offset: u64, data: &[u8]) -> Result<(), IoError> {
        let (page, at) = (offset / PAGE, offset % PAGE);
        match page {
            function::COMMON => {
                let mut value = [0; 8];
                let len = data.len().min(8);
                value[..len].copy_from_slice(&data[..len]);
                let value = u64::from_le_bytes(value);
                let request = self.registers.write(at, data.len(), value)?;
                self.handle(request);
            }
            function::DEVICE => {
                self.check_config(at, data.len())?;
                self.device.write_config(at as u32, data);
            }
            function::NOTIFY => match self.queues.get((at / NOTIFY_STRIDE) as usize) {
                Some(queue) => queue.kick.set(),
                None => return Err(IoError::InvalidRegister),
            },
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn check_config(&self, at: u64, len: usize) -> Result<(), IoError> {
        if at + len as u64 <= self.info.config_len.into() {
            Ok(())
        } else {
            Err(IoError::InvalidRegister)
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Nothing => {}
            Request::Reset => self.reset_virtio(),
            Request::Status => self.settle(),
            Request::Vector(queue, vector) => self.function.set_vector(queue, vector),
            Request::QueueEnabled => {
                // Only a device that works already has to learn of it.
                if self.active {
                    self.rest();
                    self.settle();
                }
            }
            Request::QueueReset(index) => {
                self.rest();
                if let Some(queue) = self.registers.queues.get_mut(usize::from(index)) {
                    queue.reset();
                }
                self.apply_vectors();
                self.settle();
            }
        }
    }

    /// Where the access through the configuration space goes, and its length, if both are possible.
    fn window_target(&self) -> Option<(u64, usize)> {
        let side = self.function.lock();
        let register = |at| side.pci.read_config(self.window + at);
        let (bar, offset, len) = (register(4) as u8, register(8), register(12) as usize);
        let possible = usize::from(bar) == function::BAR
            && matches!(len, 1 | 2 | 4)
            && (offset as usize).is_multiple_of(len);
        possible.then_some((offset.into(), len))
    }

    fn changed(&mut self, change: ConfigChange) {
        self.function.msix_changed(&self.function.lock());
        if change == ConfigChange::DecodingChanged {
            self.move_doorbells();
        }
        self.settle();
    }
}

impl ChipsetDevice for VirtioPciDevice {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources {
            pci: Some(self.address),
            ..Default::default()
        }
    }

    fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
        Some(self)
    }

    fn pci(&mut self) -> Option<&mut dyn PciConfigDevice> {
        Some(self)
    }

    fn start(&mut self) {
        self.started = true;
        self.settle();
    }

    fn stop(&mut self) {
        self.started = false;
        self.settle();
    }

    fn reset(&mut self) {
        self.reset_virtio();
        {
            let mut side = self.function.lock();
            side.pci.reset();
            self.function.msix_changed(&side);
        }
        self.move_doorbells();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let device = self.device.save()?;
        let side = self.function.lock();
        Ok(SavedState::encode(&DeviceState {
            function: side.pci.save(),
            isr: side.isr,
            registers: RegistersState::save(&self.registers),
            generation: self.signals.generation(),
            needs_reset: self.signals.needs_reset(),
            device,
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: DeviceState = state.decode()?;
        let registers = state.registers.registers(&self.registers)?;
        self.function.lock().pci.check(&state.function)?;
        self.device.restore(state.device.as_ref())?;
        // From here on nothing is refused.
        self.registers = registers;
        self.signals.set_generation(state.generation);
        self.signals.set_needs_reset(state.needs_reset);
        self.apply_vectors();
        let restored = {
            let mut side = self.function.lock();
            side.isr = state.isr;
            let restored = side.pci.restore(&state.function);
            self.function.msix_changed(&side);
            restored
        };
        self.move_doorbells();
        restored
    }

    fn inspect(&self) -> serde_json::Value {
        let registers = &self.registers;
        let status = registers.status;
        let needs_reset = self.signals.needs_reset();
        let queues: Vec<_> = self
            .queues
            .iter()
            .zip(&registers.queues)
            .map(|(ends, queue)| inspect_queue(ends, queue, &self.memory, self.active))
            .collect();
        let side = self.function.lock();
        json!({
            "type": self.info.device_type,
            "status": format!("{:#04x}", status | if needs_reset { NEEDS_RESET } else { 0 }),
            "working": self.active,
            "needs_reset": needs_reset,
            "faults": self.signals.faults(),
            "offered_features": format!("{:#x}", registers.offered),
            "driver_features": format!("{:#x}", registers.driver_features),
            "isr": side.isr,
            "doorbells": self.doorbells.len(),
            "queues": queues,
            "device": self.device.inspect(),
            "pci": side.pci.inspect(),
        })
    }
}

fn inspect_queue(
    ends: &QueueEnds,
    queue: &crate::registers::QueueRegisters,
    memory: &GuestMemory,
    active: bool,
) -> serde_json::Value {
    use vm_memory::Bytes as _;
    let layout = &queue.layout;
    // The rings' own indices: what the driver made available, what the device used.
    let index = |ring: u64| -> Option<u16> {
        let at = vm_memory::GuestAddress(ring.checked_add(2)?);
        memory.map().read_obj(at).ok().filter(|_| queue.enabled)
    };
    let mut value = json!({
        "enabled": queue.enabled,
        "size": layout.size,
        "vector": queue.vector,
        "descriptors": format!("{:#x}", layout.descriptors),
        "available": format!("{:#x}", layout.available),
        "used": format!("{:#x}", layout.used),
        "available_index": index(layout.available),
        "used_index": index(layout.used),
        "kicks": ends.stats.kicks.load(Ordering::Relaxed),
        "chains": ends.stats.chains.load(Ordering::Relaxed),
        "interrupts": ends.stats.interrupts.load(Ordering::Relaxed),
    });
    if !active {
        value["next_available"] = layout.next_available.into();
        value["next_used"] = layout.next_used.into();
    }
    value
}

impl MmioDevice for VirtioPciDevice {
    fn read(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let side = self.function.lock();
        match side.pci.locate_memory(gpa) {
            Some(Location::Msix(register)) => side.pci.read_msix(register, data),
            Some(Location::Bar { index, offset }) if index == function::BAR => {
                drop(side);
                self.read_structure(offset, data)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let mut side = self.function.lock();
        match side.pci.locate_memory(gpa) {
            Some(Location::Msix(register)) => side.pci.write_msix(register, data),
            Some(Location::Bar { index, offset }) if index == function::BAR => {
                drop(side);
                self.write_structure(offset, data)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }
}

impl PciConfigDevice for VirtioPciDevice {
    fn read(&mut self, offset: u16) -> Result<u32, IoError> {
        if offset == self.window + 16 {
            let Some((offset, len)) = self.window_target() else {
                return Ok(0);
            };
            let mut data = [0; 4];
            self.read_structure(offset, &mut data[..len])?;
            return Ok(u32::from_le_bytes(data));
        }
        Ok(self.function.lock().pci.read_config(offset))
    }

    fn write(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        if offset == self.window + 16 {
            let Some((offset, len)) = self.window_target() else {
                return Ok(());
            };
            return self.write_structure(offset, &value.to_le_bytes()[..len]);
        }
        let change = self.function.lock().pci.write_config(offset, value, mask);
        self.changed(change);
        Ok(())
    }
}

impl Drop for VirtioPciDevice {
    fn drop(&mut self) {
        self.rest();
    }
}

impl std::fmt::Debug for VirtioPciDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioPciDevice")
            .field("signals", &self.signals)
            .field("address", &self.address)
            .field("registers", &self.registers)
            .finish_non_exhaustive()
    }
}
