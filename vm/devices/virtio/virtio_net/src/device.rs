use crate::MacAddress;
use crate::NetBackend;
use crate::header;
use crate::receive::Buffers;
use crate::receive::Receiver;
use crate::stats::Stats;
use crate::transmit::Transmitter;
use crate::transmit::WorkError;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use parking_lot::Mutex;
use pci_core::ClassCode;
use serde_json::json;
use std::sync::Arc;
use virtio::ActivateError;
use virtio::Activation;
use virtio::DeviceInfo;
use virtio::DeviceSignals;
use virtio::Stop;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio::Worker;

const RECEIVE_QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 256;

/// The length of the configuration: up to and including the MTU (5.1.4).
const CONFIG_LEN: usize = 12;
const STATUS_LINK_UP: u16 = 1;

/// Frames that a reset drops at most, of those that wait in the backend.
const MAX_STALE: u32 = 4096;

/// An Ethernet frame's header with a VLAN tag, in bytes.
const ETHERNET_HEADER: u32 = 18;
/// The MTU of a network that says nothing else, in bytes.
const DEFAULT_MTU: u16 = 1500;

/// What a network device says about itself.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address.
    pub mac: MacAddress,
    /// The MTU to tell the guest, in bytes, 68 or more. Without, the guest takes 1500.
    pub mtu: Option<u16>,
}

/// Whether the cable is plugged in.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Frames go through.
    Up,
    /// Frames are lost.
    Down,
}

#[derive(Debug)]
struct LinkShared {
    state: LinkState,
    signals: Option<DeviceSignals>,
}

/// The cable of a network device. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link(Arc<Mutex<LinkShared>>);

impl Link {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(LinkShared {
            state: LinkState::Up,
            signals: None,
        })))
    }

    /// Plugs the cable in or out, and tells the guest.
    pub fn set(&self, state: LinkState) {
        let signals = {
            let mut shared = self.0.lock();
            let changed = std::mem::replace(&mut shared.state, state) != state;
            shared.signals.clone().filter(|_| changed)
        };
        if let Some(signals) = signals {
            signals.config_changed();
        }
    }

    /// Whether it is plugged in.
    pub fn state(&self) -> LinkState {
        self.0.lock().state
    }
}

/// A network device with one pair of queues.
///
/// Each queue has a thread of its own: frames in one direction do not wait for those in the other.
#[derive(Debug)]
pub struct NetDevice<B> {
    shared: Arc<Shared<B>>,
    config: NetConfig,
    workers: Vec<Worker<VirtQueue>>,
}

#[derive(Debug)]
struct Shared<B> {
    backend: B,
    link: Link,
    received: Stats,
    sent: Stats,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct NetState {
    /// The driver has read it, and stays with it.
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: [u8; 6],
}

impl<B: NetBackend> NetDevice<B> {
    /// A network device on `backend`.
    pub fn new(backend: B, config: NetConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                backend,
                link: Link::new(),
                received: Stats::default(),
                sent: Stats::default(),
            }),
            config,
            workers: Vec::new(),
        }
    }

    /// The device's cable, plugged in at first.
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
    ) -> Result<Worker<VirtQueue>, ActivateError> {
        let shared = self.shared.clone();
        let worker = if queue.index() == RECEIVE_QUEUE {
            let buffers = self.buffers(features);
            Worker::spawn("virtio-net-rx", move |stop: &Stop| {
                let receiver = Receiver {
                    backend: &shared.backend,
                    link: &shared.link,
                    stats: &shared.received,
                    stop,
                    buffers,
                };
                finish(receiver.run(&mut queue), &signals);
                queue
            })
        } else {
            Worker::spawn("virtio-net-tx", move |stop: &Stop| {
                let transmitter = Transmitter {
                    backend: &shared.backend,
                    link: &shared.link,
                    stats: &shared.sent,
                    stop,
                };
                finish(transmitter.run(&mut queue), &signals);
                queue
            })
        };
        worker.map_err(|source| ActivateError {
            operation: "start a network device's thread",
            source,
        })
    }

    fn buffers(&self, features: u64) -> Buffers {
        if features & header::MRG_RXBUF == 0 {
            return Buffers::Single;
        }
        Buffers::Merged(if header::guest_offloads(features).any_segmentation() {
            header::MAX_LEN
        } else {
            let mtu = self.config.mtu.unwrap_or(0).max(DEFAULT_MTU);
            header::LEN + ETHERNET_HEADER + u32::from(mtu)
        })
    }
}

fn finish(result: Result<(), WorkError>, signals: &DeviceSignals) {
    if let Err(error) = result {
        signals.fail(&error);
    }
}

impl<B: NetBackend> VirtioDevice for NetDevice<B> {
    fn info(&self) -> DeviceInfo {
        let mtu = self.config.mtu.map_or(0, |_| header::MTU);
        DeviceInfo {
            device_type: 1,
            // An Ethernet controller.
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
            queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE],
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
        shared.link.0.lock().signals = Some(activation.signals.clone());
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
        // Both at once, and only then wait.
        self.workers.iter().for_each(Worker::ask_to_stop);
        self.workers.drain(..).map(Worker::stop).collect()
    }

    fn reset(&mut self) {
        let shared = &self.shared;
        shared.link.0.lock().signals = None;
        let backend = &shared.backend;
        if let Err(error) = backend.set_guest_offloads(crate::Offloads::NONE) {
            tracing::debug!(%error, "failed to turn off the offloads of a network device");
        }
        // Frames that wait were made for the driver that is gone, and may need what the next one lacks.
        let mut frame = [0; 64];
        for _ in 0..MAX_STALE {
            if rustix::io::retry_on_intr(|| rustix::io::read(backend, &mut frame)).is_err() {
                break;
            }
            shared.received.drop_frame();
        }
    }

    fn save(&mut self) -> Result<Option<SavedState>, SaveError> {
        Ok(Some(SavedState::encode(&NetState {
            mac: self.config.mac.bytes(),
        })))
    }

    fn restore(&mut self, state: Option<&SavedState>) -> Result<(), RestoreError> {
        let Some(state) = state else {
            return Err(RestoreError::Invalid(
                "the network device has no state".into(),
            ));
        };
        let NetState { mac } = state.decode()?;
        let own = self.config.mac;
        if mac != own.bytes() {
            return Err(RestoreError::Invalid(format!(
                "the network device had MAC address {mac:02x?}, and has {own} here"
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
