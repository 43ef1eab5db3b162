use crate::ActivateError;
use crate::Activation;
use crate::DeviceInfo;
use crate::Event;
use crate::PciSlot;
use crate::QueueError;
use crate::Siblings;
use crate::Stop;
use crate::VirtQueue;
use crate::VirtioDevice;
use crate::VirtioPciDevice;
use crate::Wakeup;
use crate::Worker;
use chipset_device::AddressDecoder;
use chipset_device::Doorbell;
use chipset_device::DoorbellAddress;
use chipset_device::DoorbellMatch;
use chipset_device::DoorbellTarget;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use chipset_device::PciAddress;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use parking_lot::Mutex;
use pci_core::ClassCode;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A machine to plug one device into: 32 MiB of RAM, and an end for everything the device reaches out to.
#[derive(Clone)]
pub struct Machine {
    /// Its RAM.
    pub memory: GuestMemory,
    ends: Arc<Ends>,
}

#[derive(Default)]
struct Ends {
    vectors: Mutex<Vec<Arc<Vector>>>,
    line: AtomicBool,
    doorbells: Mutex<Vec<(u64, u64, OwnedFd)>>,
    next_doorbell: AtomicU64,
}

struct Vector {
    event: Event,
    enabled: AtomicBool,
}

struct EndsOf(Arc<Ends>);

impl Machine {
    /// A machine with nothing in its RAM.
    ///
    /// # Panics
    ///
    /// If the host has no memory for it.
    pub fn new() -> Self {
        let layout = match MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 40) {
            Ok(layout) => layout,
            Err(error) => panic!("{error:?}"),
        };
        match GuestMemory::anonymous(layout) {
            Ok(memory) => Self {
                memory,
                ends: Arc::default(),
            },
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Plugs `device` in.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn plug(&self, device: impl VirtioDevice) -> VirtioPciDevice {
        self.ends.vectors.lock().clear();
        let slot = PciSlot {
            siblings: Siblings::Alone,
            name: "test".into(),
            address: PciAddress {
                bus: 0,
                device: 3,
                function: 0,
            },
            memory: &self.memory,
            msi: &EndsOf(self.ends.clone()),
            line: Some(LineInterrupt::new(16, Arc::new(EndsOf(self.ends.clone())))),
            doorbells: Arc::new(EndsOf(self.ends.clone())),
            decoder: AddressDecoder::detached(),
        };
        match VirtioPciDevice::new(device, slot) {
            Ok(device) => device,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Whether the interrupt line is high.
    pub fn line_is_high(&self) -> bool {
        self.ends.line.load(Ordering::SeqCst)
    }

    /// Whether MSI-X vector `index` was raised since this was asked last.
    pub fn take_msi(&self, index: u16) -> bool {
        let vectors = self.ends.vectors.lock();
        let vector = vectors.get(usize::from(index));
        vector.is_some_and(|v| v.enabled.load(Ordering::SeqCst) && v.event.clear())
    }

    /// Rings the doorbell at `gpa`. `false` if there is none.
    pub fn ring_doorbell(&self, gpa: u64) -> bool {
        let doorbells = self.ends.doorbells.lock();
        let Some((_, _, event)) = doorbells.iter().find(|(_, at, _)| *at == gpa) else {
            return false;
        };
        crate::event::signal(event.as_fd());
        true
    }

    /// How many doorbells there are.
    pub fn doorbells(&self) -> usize {
        self.ends.doorbells.lock().len()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl LineTarget for EndsOf {
    fn set_line(&self, _gsi: u32, high: bool) {
        self.0.line.store(high, Ordering::SeqCst);
    }
}

impl MsiTarget for EndsOf {
    fn signal(&self, _message: MsiMessage) {}

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        let vector = Arc::new(Vector {
            event: Event::new()?,
            enabled: AtomicBool::new(false),
        });
        self.0.vectors.lock().push(vector.clone());
        Ok(Box::new(VectorEnd(vector)))
    }
}

struct VectorEnd(Arc<Vector>);

impl MsiVector for VectorEnd {
    fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    fn enable(&self, _message: MsiMessage) -> io::Result<()> {
        self.0.enabled.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn disable(&self) -> io::Result<()> {
        self.0.enabled.store(false, Ordering::SeqCst);
        Ok(())
    }
}

struct RegisteredDoorbell {
    ends: Arc<Ends>,
    id: u64,
}

impl Doorbell for RegisteredDoorbell {}

impl Drop for RegisteredDoorbell {
    fn drop(&mut self) {
        let mut doorbells = self.ends.doorbells.lock();
        doorbells.retain(|(id, _, _)| *id != self.id);
    }
}

impl DoorbellTarget for EndsOf {
    fn register(
        &self,
        address: DoorbellAddress,
        matching: DoorbellMatch,
        event: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn Doorbell>> {
        let (DoorbellAddress::Gpa(gpa), DoorbellMatch::Any) = (address, matching) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let id = self.0.next_doorbell.fetch_add(1, Ordering::SeqCst);
        let event = event.try_clone_to_owned()?;
        self.0.doorbells.lock().push((id, gpa, event));
        Ok(Box::new(RegisteredDoorbell {
            ends: self.0.clone(),
            id,
        }))
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("line_is_high", &self.line_is_high())
            .field("doorbells", &self.doorbells())
            .finish_non_exhaustive()
    }
}

/// A device type that copies what it reads from a chain to where it may write, for tests of transports.
#[derive(Debug, Default)]
pub struct MirrorDevice {
    workers: Vec<Worker<VirtQueue>>,
    config: [u8; 8],
}

impl MirrorDevice {
    /// A feature it offers.
    pub const FEATURE: u64 = 1 << 5;
}

impl VirtioDevice for MirrorDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            device_type: 42,
            class: ClassCode::default(),
            features: Self::FEATURE,
            queue_sizes: vec![64, 256],
            config_len: 8,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        data.copy_from_slice(&self.config[offset as usize..][..data.len()]);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        self.config[offset as usize..][..data.len()].copy_from_slice(data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        for mut queue in activation.queues {
            let worker = Worker::spawn("mirror", move |stop: &Stop| {
                if let Err(error) = mirror(&mut queue, stop) {
                    queue.fail(&error);
                }
                queue
            });
            self.workers.push(worker.map_err(|source| ActivateError {
                operation: "start a thread",
                source,
            })?);
        }
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<VirtQueue> {
        self.workers.drain(..).map(Worker::stop).collect()
    }

    fn reset(&mut self) {
        self.config = [0; 8];
    }
}

fn mirror(queue: &mut VirtQueue, stop: &Stop) -> Result<(), QueueError> {
    loop {
        queue.clear_kick();
        queue.disable_kicks()?;
        while let Some(chain) = queue.next()? {
            let mut data = vec![0; chain.readable.len().min(1 << 16) as usize];
            let len = chain.readable.read(queue.memory(), 0, &mut data);
            let written = chain.writable.write(queue.memory(), 0, &data[..len]);
            queue.complete(chain, written as u32)?;
            if stop.is_set() {
                return queue.interrupt();
            }
        }
        queue.interrupt()?;
        if !queue.enable_kicks()? && !matches!(stop.wait(&[queue.kick()]), Ok(Wakeup::Ready)) {
            return Ok(());
        }
    }
}
