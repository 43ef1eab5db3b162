//! A virtio device as a chipset device on PCI.

use crate::Activation;
use crate::DeviceInfo;
use crate::DeviceSignals;
use crate::EventFd;
use crate::QueueStats;
use crate::VirtQueue;
use crate::VirtioDevice;
use crate::common_config::CommonConfig;
use crate::common_config::EVENT_IDX;
use crate::common_config::Effect;
use crate::common_config::NEEDS_RESET;
use crate::common_config::QueueConfig;
use crate::common_config::TRANSPORT_FEATURES;
use crate::queue::QueueParts;
use crate::transport::connection::PciConnection;
use crate::transport::function;
use crate::transport::function::FunctionInterrupts;
use crate::transport::function::NOTIFY_STRIDE;
use crate::transport::function::PAGE;
use crate::transport::function::SharedFunction;
use crate::transport::function::TransportError;
use crate::transport::state::DeviceState;
use chipset_device::ChipsetDevice;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
use log_limit::LogLimit;
use pci_core::Location;
use serde_json::json;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A virtio device that is a PCI function (4.1).
pub struct VirtioPciDevice {
    address: PciAddress,
    device: Box<dyn VirtioDevice>,
    info: DeviceInfo,
    memory: GuestMemory,
    registers: CommonConfig,
    signals: DeviceSignals,
    function: Arc<SharedFunction>,
    /// The offset of the `VIRTIO_PCI_CAP_PCI_CFG` capability (4.1.4.9).
    window: u16,
    queues: Vec<QueueResources>,
    doorbell_target: Arc<dyn DoorbellTarget>,
    /// The address of the BAR when the doorbells were registered.
    doorbell_base: Option<u64>,
    doorbells: Vec<Box<dyn Doorbell>>,
    /// Limits lines about doorbells that cannot be registered: guests move BARs as often as they like.
    doorbell_log: LogLimit,
    /// Whether VPs run.
    started: bool,
    /// Whether the device type is activated and has the queues.
    active: bool,
}

/// What a queue has whether it is enabled or not.
struct QueueResources {
    kick: Arc<EventFd>,
    stats: Arc<QueueStats>,
}

impl VirtioPciDevice {
    /// Creates the PCI function for `device`.
    pub fn new(
        device: impl VirtioDevice,
        mut connection: PciConnection<'_>,
    ) -> Result<Self, TransportError> {
        let info = device.info();
        let (pci, window) = function::build(&info, &mut connection)?;
        let queues = info.queue_sizes.iter().map(|_| {
            Ok(QueueResources {
                kick: Arc::new(EventFd::new()?),
                stats: Arc::default(),
            })
        });
        let queues: Result<Vec<_>, std::io::Error> = queues.collect();
        let queues = queues.map_err(|source| TransportError::Event {
            name: connection.name.clone(),
            source,
        })?;
        let offered = info.features | TRANSPORT_FEATURES;
        let registers = CommonConfig::new(offered, pci.msix_vectors(), &info.queue_sizes);
        let function = SharedFunction::new(pci, queues.len());
        Ok(Self {
            address: connection.address,
            device: Box::new(device),
            info,
            memory: connection.memory.clone(),
            registers,
            signals: DeviceSignals::new(connection.name, FunctionInterrupts(function.clone())),
            function,
            window,
            queues,
            doorbell_target: connection.doorbells,
            doorbell_base: None,
            doorbells: Vec::new(),
            doorbell_log: LogLimit::new(),
            started: false,
            active: false,
        })
    }

    /// The device's signals, for those that change its configuration from outinner.
    pub fn signals(&self) -> &DeviceSignals {
        &self.signals
    }

    /// Activates or deactivates the device type as the current state requires.
    ///
    /// It is inactive while the function may not access memory (bus mastering is off): a kernel that is about to
    /// start another relies on that.
    fn update_activation(&mut self) {
        let wanted =
            self.started && self.registers.driver_ok() && self.function.lock().pci.is_bus_master();
        if !wanted {
            self.deactivate();
        } else if !self.active && !self.signals.needs_reset() {
            self.activate();
        }
    }

    fn activate(&mut self) {
        let features = self.registers.driver_features;
        let mut queues = Vec::new();
        let queue_parts = self.queues.iter().zip(&self.registers.queues);
        for (index, (resources, registers)) in queue_parts.enumerate() {
            if !registers.enabled {
                continue;
            }
            let parts = QueueParts {
                index: index as u16,
                memory: self.memory.clone(),
                kick: resources.kick.clone(),
                signals: self.signals.clone(),
                stats: resources.stats.clone(),
            };
            match VirtQueue::new(parts, registers, features & EVENT_IDX != 0) {
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

    fn deactivate(&mut self) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        for mut queue in self.device.deactivate() {
            // The worker may have stopped between completing and interrupting.
            if let Err(error) = queue.interrupt() {
                queue.fail(&error);
            }
            if let Some(registers) = self.registers.queues.get_mut(usize::from(queue.index())) {
                queue.store_progress(registers);
            }
        }
    }

    /// Resets what the driver can reset: everything but the PCI function.
    fn reset_virtio(&mut self) {
        self.deactivate();
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

    /// Moves the doorbells to the current address of the BAR.
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
                    // Notifications then reach the device as writes.
                    if let Some(suppressed) = self.doorbell_log.allow() {
                        let device = self.signals.name();
                        tracing::warn!(device, gpa, %error, suppressed, "failed to register a doorbell");
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
            // Notification addresses read as 0.
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
                let effect = self.registers.write(at, data.len(), value)?;
                self.apply(effect);
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

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Reset => self.reset_virtio(),
            Effect::Status => self.update_activation(),
            Effect::Vector(queue, vector) => self.function.set_vector(queue, vector),
            Effect::QueueEnabled => {
                // Only an active device has to learn of it.
                if self.active {
                    self.deactivate();
                    self.update_activation();
                }
            }
            Effect::QueueReset(index) => {
                self.deactivate();
                if let Some(queue) = self.registers.queues.get_mut(usize::from(index)) {
                    queue.reset();
                }
                self.apply_vectors();
                self.update_activation();
            }
        }
    }

    /// The offset in the BAR and the length of an access through the configuration space, if they are valid.
    fn window_target(&self) -> Option<(u64, usize)> {
        let inner = self.function.lock();
        let register = |at| inner.pci.read_config(self.window + at);
        let (bar, offset, len) = (register(4) as u8, register(8), register(12) as usize);
        let valid = usize::from(bar) == function::BAR
            && matches!(len, 1 | 2 | 4)
            && (offset as usize).is_multiple_of(len);
        valid.then_some((offset.into(), len))
    }

    fn config_written(&mut self) {
        self.function.msix_changed(&self.function.lock());
        self.move_doorbells();
        self.update_activation();
    }
}

impl ChipsetDevice for VirtioPciDevice {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::pci(self.address)
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let inner = self.function.lock();
        match inner.pci.locate_memory(gpa) {
            Some(Location::Msix(register)) => inner.pci.read_msix(register, data),
            Some(Location::Bar { index, offset }) if index == function::BAR => {
                drop(inner);
                self.read_structure(offset, data)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let mut inner = self.function.lock();
        match inner.pci.locate_memory(gpa) {
            Some(Location::Msix(register)) => inner.pci.write_msix(register, data),
            Some(Location::Bar { index, offset }) if index == function::BAR => {
                drop(inner);
                self.write_structure(offset, data)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
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

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        if offset == self.window + 16 {
            let Some((offset, len)) = self.window_target() else {
                return Ok(());
            };
            return self.write_structure(offset, &value.to_le_bytes()[..len]);
        }
        self.function.lock().pci.write_config(offset, value, mask);
        self.config_written();
        Ok(())
    }

    fn start(&mut self) {
        self.started = true;
        self.update_activation();
    }

    fn stop(&mut self) {
        self.started = false;
        self.update_activation();
    }

    fn reset(&mut self) {
        self.reset_virtio();
        {
            let mut inner = self.function.lock();
            inner.pci.reset();
            self.function.msix_changed(&inner);
        }
        self.move_doorbells();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let device = self.device.save()?;
        let inner = self.function.lock();
        Ok(SavedState::encode(&DeviceState {
            function: inner.pci.save(),
            isr: inner.isr,
            registers: self.registers.clone(),
            generation: self.signals.generation(),
            needs_reset: self.signals.needs_reset(),
            device,
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: DeviceState = state.decode()?;
        let registers = self.registers.restored(state.registers)?;
        self.function.lock().pci.check(&state.function)?;
        self.device.restore(state.device.as_ref())?;
        // From here on nothing fails.
        self.registers = registers;
        self.signals.set_generation(state.generation);
        self.signals.set_needs_reset(state.needs_reset);
        self.apply_vectors();
        let restored = {
            let mut inner = self.function.lock();
            inner.isr = state.isr;
            let restored = inner.pci.restore(&state.function);
            self.function.msix_changed(&inner);
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
            .map(|(resources, queue)| inspect_queue(resources, queue, &self.memory, self.active))
            .collect();
        let inner = self.function.lock();
        json!({
            "type": self.info.device_type,
            "status": format!("{:#04x}", status | if needs_reset { NEEDS_RESET } else { 0 }),
            "working": self.active,
            "needs_reset": needs_reset,
            "faults": self.signals.faults(),
            "offered_features": format!("{:#x}", registers.offered),
            "driver_features": format!("{:#x}", registers.driver_features),
            "isr": inner.isr,
            "doorbells": self.doorbells.len(),
            "queues": queues,
            "device": self.device.inspect(),
            "pci": inner.pci.inspect(),
        })
    }
}

fn inspect_queue(
    resources: &QueueResources,
    queue: &QueueConfig,
    memory: &GuestMemory,
    active: bool,
) -> serde_json::Value {
    use vm_memory::Bytes as _;
    // The indices in the rings: what the driver made available, what the device used.
    let index = |ring: u64| -> Option<u16> {
        let at = vm_memory::GuestAddress(ring.checked_add(2)?);
        memory.map().read_obj(at).ok().filter(|_| queue.enabled)
    };
    let mut value = json!({
        "enabled": queue.enabled,
        "size": queue.size,
        "vector": queue.vector,
        "descriptors": format!("{:#x}", queue.descriptors),
        "available": format!("{:#x}", queue.available),
        "used": format!("{:#x}", queue.used),
        "available_index": index(queue.available),
        "used_index": index(queue.used),
        "kicks": resources.stats.kicks.load(Ordering::Relaxed),
        "chains": resources.stats.chains.load(Ordering::Relaxed),
        "interrupts": resources.stats.interrupts.load(Ordering::Relaxed),
    });
    if !active {
        value["next_available"] = queue.next_available.into();
        value["next_used"] = queue.next_used.into();
    }
    value
}

impl Drop for VirtioPciDevice {
    fn drop(&mut self) {
        self.deactivate();
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
