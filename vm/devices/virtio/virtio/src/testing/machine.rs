//! A machine for one device, and a simple device type.

use crate::ActivateError;
use crate::Activation;
use crate::DeviceInfo;
use crate::EventFd;
use crate::MultiFunction;
use crate::PciConnection;
use crate::QueueError;
use crate::StopSignal;
use crate::VirtQueue;
use crate::VirtioDevice;
use crate::VirtioPciDevice;
use crate::Wakeup;
use crate::WorkerThread;
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

/// A machine for one device: 32 MiB of RAM, and fakes of everything the device is connected to.
#[derive(Clone)]
pub struct TestMachine {
    /// Guest RAM.
    pub memory: GuestMemory,
    targets: Arc<Targets>,
}

#[derive(Default)]
struct Targets {
    vectors: Mutex<Vec<Arc<Vector>>>,
    line: AtomicBool,
    doorbells: Mutex<Vec<(u64, u64, OwnedFd)>>,
    next_doorbell: AtomicU64,
}

struct Vector {
    event: EventFd,
    enabled: AtomicBool,
}

struct TargetsOf(Arc<Targets>);

impl TestMachine {
    /// Creates a machine with zeroed RAM.
    ///
    /// # Panics
    ///
    /// If the host is out of memory.
    pub fn new() -> Self {
        let layout = match MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 40) {
            Ok(layout) => layout,
            Err(error) => panic!("{error:?}"),
        };
        match GuestMemory::anonymous(layout) {
            Ok(memory) => Self {
                memory,
                targets: Arc::default(),
            },
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Connects `device`.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn plug(&self, device: impl VirtioDevice) -> VirtioPciDevice {
        self.targets.vectors.lock().clear();
        let connection = PciConnection {
            multi_function: MultiFunction::No,
            name: "test".into(),
            address: PciAddress {
                bus: 0,
                device: 3,
                function: 0,
            },
            memory: &self.memory,
            msi: &TargetsOf(self.targets.clone()),
            line: Some(LineInterrupt::new(
                16,
                Arc::new(TargetsOf(self.targets.clone())),
            )),
            doorbells: Arc::new(TargetsOf(self.targets.clone())),
            decoder: AddressDecoder::detached(),
        };
        match VirtioPciDevice::new(device, connection) {
            Ok(device) => device,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Whether the interrupt line is high.
    pub fn line_is_high(&self) -> bool {
        self.targets.line.load(Ordering::SeqCst)
    }

    /// Whether MSI-X vector `index` was raised since the last call.
    pub fn take_msi(&self, index: u16) -> bool {
        let vectors = self.targets.vectors.lock();
        let vector = vectors.get(usize::from(index));
        vector.is_some_and(|v| v.enabled.load(Ordering::SeqCst) && v.event.clear())
    }

    /// Rings the doorbell at `gpa`. Returns `false` if there is none.
    pub fn ring_doorbell(&self, gpa: u64) -> bool {
        let doorbells = self.targets.doorbells.lock();
        let Some((_, _, event)) = doorbells.iter().find(|(_, at, _)| *at == gpa) else {
            return false;
        };
        crate::event_fd::signal(event.as_fd());
        true
    }

    /// The number of registered doorbells.
    pub fn doorbells(&self) -> usize {
        self.targets.doorbells.lock().len()
    }
}

impl Default for TestMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl LineTarget for TargetsOf {
    fn set_line(&self, _gsi: u32, high: bool) {
        self.0.line.store(high, Ordering::SeqCst);
    }
}

impl MsiTarget for TargetsOf {
    fn signal(&self, _message: MsiMessage) {}

    fn new_vector(&self) -> io::Result<Box<dyn MsiVector>> {
        let vector = Arc::new(Vector {
            event: EventFd::new()?,
            enabled: AtomicBool::new(false),
        });
        self.0.vectors.lock().push(vector.clone());
        Ok(Box::new(VectorHandle(vector)))
    }
}

struct VectorHandle(Arc<Vector>);

impl MsiVector for VectorHandle {
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
    targets: Arc<Targets>,
    id: u64,
}

impl Doorbell for RegisteredDoorbell {}

impl Drop for RegisteredDoorbell {
    fn drop(&mut self) {
        let mut doorbells = self.targets.doorbells.lock();
        doorbells.retain(|(id, _, _)| *id != self.id);
    }
}

impl DoorbellTarget for TargetsOf {
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
            targets: self.0.clone(),
            id,
        }))
    }
}

impl std::fmt::Debug for TestMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestMachine")
            .field("line_is_high", &self.line_is_high())
            .field("doorbells", &self.doorbells())
            .finish_non_exhaustive()
    }
}

/// A device type that copies the readable bytes of each chain to its writable buffers, for tests of transports.
#[derive(Default)]
pub struct MirrorDevice {
    workers: Vec<WorkerThread<VirtQueue>>,
    config: [u8; 8],
}

impl MirrorDevice {
    /// The feature that it offers.
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
            let worker = WorkerThread::spawn("mirror", move |stop: &StopSignal| {
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
        self.workers.drain(..).map(WorkerThread::stop).collect()
    }

    fn reset(&mut self) {
        self.config = [0; 8];
    }
}

fn mirror(queue: &mut VirtQueue, stop: &StopSignal) -> Result<(), QueueError> {
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
