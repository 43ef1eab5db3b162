//! The device type.

use crate::EntropyRate;
use crate::budget::Budget;
use pci_core::ClassCode;
use serde_json::json;
use std::io;
use std::time::Instant;
use virtio::ActivateError;
use virtio::Activation;
use virtio::DescriptorChain;
use virtio::DeviceInfo;
use virtio::DeviceSignals;
use virtio::QueueError;
use virtio::StopSignal;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio::Wakeup;
use virtio::WorkerThread;

/// The maximum number of bytes for one chain. The driver sees the number, and requests more.
const MAX_REQUEST: u32 = 64 << 10;

/// Bytes generated at a time.
const PIECE: usize = 4096;

/// An entropy device.
pub struct EntropyDevice {
    rate: EntropyRate,
    /// Kept across resets: a guest gets no new burst by a reset.
    budget: Option<Budget>,
    worker: Option<WorkerThread<(Option<VirtQueue>, Budget)>>,
}

impl EntropyDevice {
    /// Creates a device that gives its guest entropy at `rate`.
    pub fn new(rate: EntropyRate) -> Self {
        Self {
            rate,
            budget: None,
            worker: None,
        }
    }
}

impl VirtioDevice for EntropyDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            device_type: 4,
            // Unassigned class.
            class: ClassCode {
                base: 0xff,
                sub: 0,
                interface: 0,
            },
            features: 0,
            queue_sizes: vec![8],
            config_len: 0,
        }
    }

    fn read_config(&mut self, _offset: u32, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let mut queue = activation.queues.pop();
        let signals = activation.signals;
        let now = Instant::now();
        let budget = self.budget.take();
        let mut budget = budget.unwrap_or_else(|| Budget::new(self.rate, now));
        let worker = WorkerThread::spawn("virtio-rng", move |stop: &StopSignal| {
            if let Some(queue) = &mut queue {
                work(queue, &mut budget, &signals, stop);
            }
            (queue, budget)
        });
        self.worker = Some(worker.map_err(|source| ActivateError {
            operation: "start the entropy device's thread",
            source,
        })?);
        Ok(())
    }

    fn deactivate(&mut self) -> Vec<VirtQueue> {
        let Some((queue, budget)) = self.worker.take().map(WorkerThread::stop) else {
            return Vec::new();
        };
        self.budget = Some(budget);
        queue.into_iter().collect()
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "bytes_per_second": self.rate.bytes_per_second,
            "burst": self.rate.burst,
        })
    }
}

/// Why the queue cannot be processed any more.
#[derive(Debug, thiserror::Error)]
enum RngQueueError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("failed to wait for the driver")]
    Wait(#[source] io::Error),
    #[error("failed to get random numbers from the host: {0}")]
    Source(getrandom::Error),
}

fn work(queue: &mut VirtQueue, budget: &mut Budget, signals: &DeviceSignals, stop: &StopSignal) {
    if let Err(error) = serve(queue, budget, stop) {
        signals.fail(&error);
    }
}

fn serve(
    queue: &mut VirtQueue,
    budget: &mut Budget,
    stop: &StopSignal,
) -> Result<(), RngQueueError> {
    loop {
        queue.clear_kick();
        queue.disable_kicks()?;
        while let Some(chain) = queue.next()? {
            let wanted = chain.writable.len().min(MAX_REQUEST);
            let granted = loop {
                if wanted == 0 || stop.is_set() {
                    break 0;
                }
                match budget.take(wanted, Instant::now()) {
                    Ok(granted) => break granted,
                    Err(wait) => stop.sleep(wait).map_err(RngQueueError::Wait)?,
                };
            };
            if stop.is_set() {
                queue.put_back(chain);
                return Ok(queue.interrupt()?);
            }
            fill(queue, &chain, granted)?;
            queue.complete(chain, granted)?;
            queue.interrupt()?;
        }
        if !queue.enable_kicks()? {
            match stop.wait(&[queue.kick()]).map_err(RngQueueError::Wait)? {
                Wakeup::Ready => {}
                Wakeup::Stop => return Ok(()),
            }
        }
    }
}

fn fill(queue: &VirtQueue, chain: &DescriptorChain, len: u32) -> Result<(), RngQueueError> {
    let mut bytes = [0; PIECE];
    for offset in (0..len).step_by(PIECE) {
        let piece = &mut bytes[..PIECE.min((len - offset) as usize)];
        getrandom::fill(piece).map_err(RngQueueError::Source)?;
        chain.writable.write(queue.memory(), offset, piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::ChipsetDevice as _;
    use virtio::testing::GuestDriver;
    use virtio::testing::Interrupts;
    use virtio::testing::TestMachine;

    fn driver(rate: EntropyRate) -> GuestDriver {
        let machine = TestMachine::new();
        let device = machine.plug(EntropyDevice::new(rate));
        GuestDriver::new(&machine, device)
    }

    #[test]
    fn requests_are_filled() {
        let mut driver = driver(EntropyRate::default());
        driver.initialize(u64::MAX, Interrupts::Msix);
        let buffer = driver.allocate(128 << 10);
        let mut read = |pieces: &[(u64, u32, bool)]| {
            driver.rings[0].add(pieces);
            driver.notify(0);
            let (_, len) = driver.wait_for_used(0);
            driver.fetch(buffer, len as usize)
        };
        let first = read(&[(buffer, 32, true)]);
        let second = read(&[(buffer, 16, true), (buffer + 16, 16, true)]);
        assert_eq!(first.len(), 32);
        assert_ne!(first, second);
        assert!(first[16..].iter().any(|b| *b != 0));
        assert_eq!(read(&[(buffer, 128 << 10, true)]).len(), 64 << 10);
        assert_eq!(read(&[(buffer, 16, false)]).len(), 0);
    }

    #[test]
    fn a_guest_out_of_budget_does_not_delay_a_stop() {
        let mut driver = driver(EntropyRate {
            bytes_per_second: 1,
            burst: 1 << 16,
        });
        driver.initialize(u64::MAX, Interrupts::Polled);
        let buffer = driver.allocate(64 << 10);
        driver.rings[0].add(&[(buffer, 64 << 10, true)]);
        driver.rings[0].add(&[(buffer, 64 << 10, true)]);
        driver.rings[0].add(&[(buffer, 64 << 10, true)]);
        driver.notify(0);
        assert_eq!(driver.wait_for_used(0).1, 64 << 10);
        driver.device.stop();
        let state = driver.device.save().unwrap();
        driver.device.restore(&state).unwrap();
        // A reset gives no new burst.
        driver.device.start();
        driver.initialize(u64::MAX, Interrupts::Polled);
        driver.rings[0].add(&[(buffer, 64 << 10, true)]);
        driver.notify(0);
        assert!(driver.wait_for_used(0).1 < 64 << 10);
    }
}
