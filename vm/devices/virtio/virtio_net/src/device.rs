//! The device type.

use crate::MacAddress;
use crate::NetBackend;
use crate::ReceiveError;
use crate::header;
use crate::link::Link;
use crate::link::LinkState;
use crate::receive::BufferMode;
use crate::receive::Receiver;
use crate::stats::NetStats;
use crate::transmit::Transmitter;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use pci_core::ClassCode;
use serde_json::json;
use std::sync::Arc;
use virtio::ActivateError;
use virtio::Activation;
use virtio::DeviceInfo;
use virtio::DeviceSignals;
use virtio::StopSignal;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio::WorkerThread;

const RECEIVE_QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 256;
pub(crate) const QUEUES: u16 = 2;

/// The length of the configuration: up to and including the MTU (5.1.4).
const CONFIG_LEN: usize = 12;
const STATUS_LINK_UP: u16 = 1;

/// The maximum number of waiting frames that are dropped together.
const MAX_WAITING: u32 = 4096;

/// An Ethernet frame's header with a VLAN tag, in bytes.
const ETHERNET_HEADER: u32 = 18;
/// The MTU of a network for which none is configured, in bytes.
pub(crate) const DEFAULT_MTU: u16 = 1500;

/// The configuration of a network device.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Its MAC address.
    pub mac: MacAddress,
    /// The MTU for the guest, in bytes, at least 68. Without one, the guest uses 1500.
    pub mtu: Option<u16>,
}

/// A network device with one pair of queues.
///
/// Each queue has its own thread: frames in one direction do not wait for those in the other.
pub struct NetDevice<B> {
    shared: Arc<Shared<B>>,
    config: NetConfig,
    workers: Vec<WorkerThread<VirtQueue>>,
}

struct Shared<B> {
    backend: Arc<B>,
    link: Link,
    received: Arc<NetStats>,
    receive_error_log: LogLimit,
    sent: NetStats,
}

/// Drops the frames that have arrived and were not received.
fn drop_waiting(backend: &impl NetBackend, received: &NetStats) {
    for _ in 0..MAX_WAITING {
        match backend.discard() {
            Ok(()) => received.drop_frame(),
            Err(ReceiveError::Lost(_)) => {}
            Err(ReceiveError::Empty | ReceiveError::Gone(_)) => break,
        }
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct NetState {
    /// The driver has read it and continues to use it.
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: [u8; 6],
}

impl<B: NetBackend> NetDevice<B> {
    /// Creates a network device on `backend`.
    pub fn new(backend: B, config: NetConfig) -> Self {
        let backend = Arc::new(backend);
        let received = Arc::new(NetStats::default());
        let link = Link::new({
            let (backend, received) = (backend.clone(), received.clone());
            move || drop_waiting(&*backend, &received)
        });
        Self {
            shared: Arc::new(Shared {
                backend,
                link,
                received,
                receive_error_log: LogLimit::new(),
                sent: NetStats::default(),
            }),
            config,
            workers: Vec::new(),
        }
    }

    /// The device's link, up at first.
    pub fn link(&self) -> Link {
        self.shared.link.clone()
    }

    fn config_bytes(&self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        bytes[..6].copy_from_slice(&self.config.mac.bytes());
        let status = match self.shared.link.state() {
            LinkState::Up => STATUS_LINK_UP,
            LinkState::Down => 0,
        };
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[8..10].copy_from_slice(&1u16.to_le_bytes());
        let mtu = self.config.mtu.unwrap_or(0);
        bytes[10..].copy_from_slice(&mtu.to_le_bytes());
        bytes
    }

    fn start_worker(
        &self,
        mut queue: VirtQueue,
        features: u64,
        signals: DeviceSignals,
    ) -> Result<WorkerThread<VirtQueue>, ActivateError> {
        let shared = self.shared.clone();
        let mode = self.buffer_mode(features);
        let receives = queue.index() == RECEIVE_QUEUE;
        let name = match receives {
            true => "virtio-net-rx",
            false => "virtio-net-tx",
        };
        let worker = WorkerThread::spawn(name, move |stop: &StopSignal| {
            let result = if receives {
                let receiver = Receiver {
                    backend: &*shared.backend,
                    link: &shared.link,
                    stats: &shared.received,
                    error_log: &shared.receive_error_log,
                    stop,
                    mode,
                };
                receiver.run(&mut queue)
            } else {
                let transmitter = Transmitter {
                    backend: &*shared.backend,
                    link: &shared.link,
                    stats: &shared.sent,
                    stop,
                };
                transmitter.run(&mut queue)
            };
            if let Err(error) = result {
                signals.fail(&error);
            }
            queue
        });
        worker.map_err(|source| ActivateError {
            operation: "start a network device's thread",
            source,
        })
    }

    fn buffer_mode(&self, features: u64) -> BufferMode {
        if features & header::MRG_RXBUF == 0 {
            return BufferMode::Single;
        }
        BufferMode::Mergeable(if header::guest_offloads(features).any_segmentation() {
            header::MAX_LEN
        } else {
            let mtu = self.config.mtu.unwrap_or(0).max(DEFAULT_MTU);
            header::LEN + ETHERNET_HEADER + u32::from(mtu)
        })
    }
}

impl<B: NetBackend> VirtioDevice for NetDevice<B> {
    fn info(&self) -> DeviceInfo {
        let mtu = self.config.mtu.map_or(0, |_| header::MTU);
        DeviceInfo {
            device_type: 1,
            // Ethernet controller.
            class: ClassCode {
                base: 0x02,
                sub: 0,
                interface: 0,
            },
            features: header::features(self.shared.backend.offloads())
                | header::MAC
                | header::MRG_RXBUF
                | header::STATUS
                | mtu,
            queue_sizes: vec![QUEUE_SIZE; QUEUES.into()],
            config_len: CONFIG_LEN as u32,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        let bytes = self.config_bytes();
        data.copy_from_slice(&bytes[offset as usize..][..data.len()]);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let shared = &self.shared;
        let offloads = header::guest_offloads(activation.features);
        let set = shared.backend.set_guest_offloads(offloads);
        set.map_err(|source| ActivateError {
            operation: "set the offloads of a network device",
            source,
        })?;
        shared.link.connect(Some(activation.signals.clone()));
        for queue in activation.queues {
            let worker = self.start_worker(queue, activation.features, activation.signals.clone());
            match worker {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    self.deactivate();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<VirtQueue> {
        // Ask both before waiting for one.
        self.workers.iter().for_each(WorkerThread::ask_to_stop);
        self.workers.drain(..).map(WorkerThread::stop).collect()
    }

    fn reset(&mut self) {
        let shared = &self.shared;
        shared.link.connect(None);
        let backend = &*shared.backend;
        if let Err(error) = backend.set_guest_offloads(crate::Offloads::NONE) {
            tracing::debug!(%error, "failed to disable the offloads of a network device");
        }
        // Waiting frames were meant for the previous driver, and may use offloads that the next one lacks.
        drop_waiting(backend, &shared.received);
    }

    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(Some(SavedState::encode(&NetState {
            mac: self.config.mac.bytes(),
        })))
    }

    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        let Some(state) = state else {
            return Err(RestoreError::Invalid(
                "there is no state of the network device".into(),
            ));
        };
        let NetState { mac } = state.decode()?;
        let own = self.config.mac;
        if mac != own.bytes() {
            return Err(RestoreError::Invalid(format!(
                "the network device had MAC address {mac:02x?} when it was saved, but has {own} now"
            )));
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "mac": self.config.mac.to_string(),
            "mtu": self.config.mtu,
            "link": match self.shared.link.state() {
                LinkState::Up => "up",
                LinkState::Down => "down",
            },
            "received": self.shared.received.inspect(),
            "sent": self.shared.sent.inspect(),
            "backend": self.shared.backend.inspect(),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
