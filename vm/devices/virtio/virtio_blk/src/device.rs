//! The device type.

use crate::BlkConfig;
use crate::config;
use crate::config::CONFIG_LEN;
use crate::config::QUEUE_SIZE;
use crate::config::WRITEBACK_OFFSET;
use crate::config::has;
use crate::queue::Caching;
use crate::queue::QueueWorker;
use crate::queue::Shared;
use crate::request::RequestParser;
use crate::stats::BlkStats;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use disk_backend::Disk;
use pci_core::ClassCode;
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
use virtio::EventFd;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

/// A virtio block device.
///
/// Each queue has a thread, which waits for notifications of the driver and completions of the disk at once.
pub struct VirtioBlk {
    disk: Arc<dyn Disk>,
    config: BlkConfig,
    features: u64,
    stats: Arc<BlkStats>,
    /// The configuration field `writeback`: whether writes are cached, if the driver can choose that.
    writeback: Arc<AtomicBool>,
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    threads: Vec<QueueThread>,
}

struct QueueThread {
    stop: Arc<EventFd>,
    handle: JoinHandle<VirtQueue>,
}

/// State in addition to the transport's.
#[derive(Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct BlkState {
    #[n(1)]
    writeback: bool,
}

impl VirtioBlk {
    /// Creates a device for `disk`.
    pub fn new(disk: Arc<dyn Disk>, config: BlkConfig) -> Self {
        Self {
            features: config::features(disk.info(), &config),
            disk,
            config,
            stats: Arc::default(),
            writeback: Arc::new(AtomicBool::new(true)),
            running: None,
        }
    }

    /// The serial number that the driver sees, if there is one.
    pub fn serial(&self) -> Option<String> {
        let bytes = self.config.serial_of(self.disk.info());
        let text: String = bytes
            .iter()
            .take_while(|&&b| b != 0)
            .map(|&b| char::from(b))
            .collect();
        (!text.is_empty()).then_some(text)
    }

    /// Starts the thread of `queue`, and waits until it has opened the disk.
    fn start(
        &self,
        shared: &Arc<Shared>,
        mut queue: VirtQueue,
        features: u64,
    ) -> io::Result<QueueThread> {
        let stop = Arc::new(EventFd::new()?);
        let memory = queue.memory().clone();
        let parser = RequestParser {
            map: Arc::new(memory.map().clone()),
            memory,
            features,
            serial: self.config.serial_of(self.disk.info()),
        };
        let (opened, is_open) = mpsc::sync_channel(1);
        let handle = std::thread::Builder::new()
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
                    // Fails only if the receiver is gone, and then `stop` is set.
                    let _ = opened.send(result);
                    if let Some(disk) = disk {
                        QueueWorker::new(&shared, &mut queue, disk, parser).run();
                    }
                    queue
                }
            })?;
        let thread = QueueThread { stop, handle };
        is_open.recv().map_err(io::Error::other)??;
        Ok(thread)
    }
}

impl Running {
    /// Stops all threads, after what the disk works on has completed.
    fn stop(self) -> Vec<VirtQueue> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in &self.threads {
            thread.stop.set();
        }
        let threads = self.threads.into_iter();
        threads
            .map(|thread| match thread.handle.join() {
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
            // Mass storage controller, other.
            class: ClassCode {
                base: 0x01,
                sub: 0x80,
                interface: 0,
            },
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
        // Everything else is read-only. Values other than 0 and 1 are unspecified.
        if let (WRITEBACK_OFFSET, [value]) = (offset, data) {
            self.writeback.store(*value != 0, Ordering::Relaxed);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let features = activation.features;
        let shared = Arc::new(Shared {
            disk: self.disk.clone(),
            signals: activation.signals,
            stats: self.stats.clone(),
            caching: if !has(features, VIRTIO_BLK_F_FLUSH) {
                // The driver cannot flush (5.2.6.2).
                Caching::WriteThrough
            } else if has(features, VIRTIO_BLK_F_CONFIG_WCE) {
                Caching::Selectable(self.writeback.clone())
            } else {
                Caching::WriteBack
            },
            stop: AtomicBool::new(false),
        });
        let mut running = Running {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for queue in activation.queues {
            match self.start(&shared, queue, features) {
                Ok(thread) => running.threads.push(thread),
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
        self.writeback.store(true, Ordering::Relaxed);
    }

    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(Some(SavedState::encode(&BlkState {
            writeback: self.writeback.load(Ordering::Relaxed),
        })))
    }

    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        let state = state
            .ok_or_else(|| RestoreError::Invalid("there is no state of the block device".into()))?;
        let state: BlkState = state.decode()?;
        self.writeback.store(state.writeback, Ordering::Relaxed);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let disk = self.disk.info();
        serde_json::json!({
            "disk": disk.name,
            "sectors": disk.sectors,
            "read_only": disk.access == disk_backend::DiskAccess::ReadOnly,
            "queues": self.config.queues(),
            "writeback": self.writeback.load(Ordering::Relaxed),
            "requests": self.stats.inspect(),
        })
    }
}

impl Drop for VirtioBlk {
    fn drop(&mut self) {
        self.deactivate();
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
