//! The device type.

use crate::BlkConfig;
use crate::config;
use crate::config::CONFIG_LEN;
use crate::config::QUEUE_SIZE;
use crate::config::WRITEBACK_OFFSET;
use crate::config::has;
use crate::flight::Flights;
use crate::queue::QueueWorker;
use crate::queue::Shared;
use crate::request::Interpreter;
use crate::stats::Stats;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use disk_backend::Disk;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use virtio::ActivateError;
use virtio::Activation;
use virtio::DeviceInfo;
use virtio::Event;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

/// The class code of a mass storage controller of no particular kind.
const CLASS: u32 = 0x01_8000;

/// A virtio block device.
///
/// Each queue has a thread, which sleeps in one place for the driver's notifications and the disk's completions.
pub struct VirtioBlk {
    disk: Arc<dyn Disk>,
    config: BlkConfig,
    features: u64,
    stats: Arc<Stats>,
    /// Whether writes may be cached, as far as the driver may know and decide.
    writeback: Arc<AtomicBool>,
    negotiated: u64,
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

struct Worker {
    stop: Arc<Event>,
    thread: JoinHandle<VirtQueue>,
}

/// What is not in the transport's state.
#[derive(Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct BlkState {
    #[n(1)]
    writeback: bool,
    #[n(2)]
    negotiated: u64,
}

impl VirtioBlk {
    /// A device that shows `disk`.
    pub fn new(disk: Arc<dyn Disk>, config: BlkConfig) -> Self {
        Self {
            features: config::features(disk.info(), &config),
            disk,
            config,
            stats: Arc::default(),
            writeback: Arc::new(AtomicBool::new(true)),
            negotiated: 0,
            running: None,
        }
    }

    /// Starts the thread of `queue`, and waits until it has its way to the disk.
    fn start(&self, shared: &Arc<Shared>, mut queue: VirtQueue) -> io::Result<Worker> {
        let stop = Arc::new(Event::new()?);
        let memory = queue.memory().clone();
        let interpreter = Interpreter {
            map: Arc::new(memory.map().clone()),
            memory,
            features: self.negotiated,
            serial: self.config.serial_of(self.disk.info()),
        };
        let (opened, is_open) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("blk-queue{}", queue.index()))
            .spawn({
                let (disk, shared, stop) = (self.disk.clone(), shared.clone(), stop.clone());
                move || {
                    let events = [queue.kick(), stop.as_fd()];
                    let disk = disk.open_queue(queue.size(), &events);
                    let (disk, result) = match disk {
                        Ok(disk) => (Some(disk), Ok(())),
                        Err(e) => (None, Err(e)),
                    };
                    // If nobody waits any more, `stop` is set.
                    let _ = opened.send(result);
                    if let Some(disk) = disk {
                        let worker = QueueWorker {
                            shared: &shared,
                            queue: &mut queue,
                            disk,
                            interpreter,
                            flights: Flights::default(),
                            completions: Vec::new(),
                        };
                        worker.run();
                    }
                    queue
                }
            })?;
        let worker = Worker { stop, thread };
        is_open.recv().map_err(io::Error::other)??;
        Ok(worker)
    }
}

impl Running {
    /// Ends all threads, after what is in flight.
    fn stop(self) -> Vec<VirtQueue> {
        self.shared.stop.store(true, Ordering::Release);
        for worker in &self.workers {
            worker.stop.set();
        }
        let threads = self.workers.into_iter().map(|worker| worker.thread);
        threads
            .map(|thread| match thread.join() {
                Ok(queue) => queue,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    }
}

impl VirtioDevice for VirtioBlk {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            device_type: VIRTIO_ID_BLOCK as u16,
            class: CLASS,
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE; self.config.queues().into()],
            config_len: CONFIG_LEN as u32,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        let writeback = self.writeback.load(Ordering::Relaxed);
        let layout = config::layout(self.disk.info(), &self.config, writeback);
        let start = offset as usize;
        if let Some(bytes) = layout.get(start..start.saturating_add(data.len())) {
            data.copy_from_slice(bytes);
        }
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        // Everything else is read-only. Of other values than 0 and 1 nothing is said.
        if let (WRITEBACK_OFFSET, [value]) = (offset, data)
            && has(self.negotiated, VIRTIO_BLK_F_CONFIG_WCE)
        {
            self.writeback.store(*value != 0, Ordering::Relaxed);
        }
    }

    fn features_negotiated(&mut self, features: u64) {
        self.negotiated = features;
        // A driver that cannot flush has no other way to make writes last (5.2.5.2).
        let writeback = has(features, VIRTIO_BLK_F_FLUSH);
        self.writeback.store(writeback, Ordering::Relaxed);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.negotiated = activation.features;
        let shared = Arc::new(Shared {
            disk: self.disk.info().name.clone(),
            signals: activation.signals,
            stats: self.stats.clone(),
            writeback: self.writeback.clone(),
            stop: AtomicBool::new(false),
        });
        let mut running = Running {
            shared: shared.clone(),
            workers: Vec::new(),
        };
        for queue in activation.queues {
            match self.start(&shared, queue) {
                Ok(worker) => running.workers.push(worker),
                Err(source) => {
                    running.stop();
                    return Err(ActivateError {
                        operation: "start the thread of a disk queue",
                        source,
                    });
                }
            }
        }
        self.running = Some(running);
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<VirtQueue> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.negotiated = 0;
        self.writeback.store(true, Ordering::Relaxed);
    }

    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(Some(SavedState::encode(&BlkState {
            writeback: self.writeback.load(Ordering::Relaxed),
            negotiated: self.negotiated,
        })))
    }

    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        let state = state.ok_or_else(|| RestoreError::Invalid("there is no state".into()))?;
        let state: BlkState = state.decode()?;
        if state.negotiated & !self.features & DEVICE_FEATURES != 0 {
            return Err(RestoreError::Invalid(format!(
                "the driver uses features {:#x}, and the disk has {:#x}",
                state.negotiated, self.features
            )));
        }
        self.negotiated = state.negotiated;
        self.writeback.store(state.writeback, Ordering::Relaxed);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let disk = self.disk.info();
        serde_json::json!({
            "disk": disk.name,
            "sectors": disk.sectors,
            "read_only": disk.access == disk_backend::Access::ReadOnly,
            "queues": self.config.queues(),
            "writeback": self.writeback.load(Ordering::Relaxed),
            "requests": self.stats.inspect(),
        })
    }
}

/// The bits of features that belong to the device type; the transport has the others.
const DEVICE_FEATURES: u64 = (1 << 24) - 1;

impl Drop for VirtioBlk {
    fn drop(&mut self) {
        self.deactivate();
    }
}
