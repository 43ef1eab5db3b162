use crate::EntropyRate;
use crate::budget::Budget;
use pci_core::ClassCode;
use serde_json::json;
use std::io;
use std::time::Instant;
use virtio::ActivateError;
use virtio::Activation;
use virtio::Chain;
use virtio::DeviceInfo;
use virtio::DeviceSignals;
use virtio::QueueError;
use virtio::Stop;
use virtio::VirtQueue;
use virtio::VirtioDevice;
use virtio::Wakeup;
use virtio::Worker;

/// The most that is put into one chain. The driver sees how much it was, and asks again.
const MAX_REQUEST: u32 = 64 << 10;

/// Bytes made at a time.
const PIECE: usize = 4096;

/// An entropy device.
#[derive(Debug)]
pub struct EntropyDevice {
    rate: EntropyRate,
    /// Lives as long as the device: a guest gets no new burst by a reset.
    budget: Option<Budget>,
    worker: Option<Worker<(Option<VirtQueue>, Budget)>>,
}

impl EntropyDevice {
    /// A device that gives its guest entropy at `rate`.
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
            // A device that fits no class.
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
        let worker = Worker::spawn("virtio-rng", move |stop: &Stop| {
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
        let Some((queue, budget)) = self.worker.take().map(Worker::stop) else {
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

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("waiting for the driver failed")]
    Wait(#[source] io::Error),
    #[error("the host has no random numbers: {0}")]
    Source(getrandom::Error),
}

fn work(queue: &mut VirtQueue, budget: &mut Budget, signals: &DeviceSignals, stop: &Stop) {
    if let Err(error) = serve(queue, budget, stop) {
        signals.fail(&error);
    }
}

fn serve(queue: &mut VirtQueue, budget: &mut Budget, stop: &Stop) -> Result<(), WorkError> {
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
                    Err(wait) => stop.sleep(wait).map_err(WorkError::Wait)?,
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
            match stop.wait(&[queue.kick()]).map_err(WorkError::Wait)? {
                Wakeup::Ready => {}
                Wakeup::Stop => return Ok(()),
            }
        }
    }
}

fn fill(queue: &VirtQueue, chain: &Chain, len: u32) -> Result<(), WorkError> {
    let mut bytes = [0; PIECE];
    for offset in (0..len).step_by(PIECE) {
        let piece = &mut bytes[..PIECE.min((len - offset) as usize)];
        getrandom::fill(piece).map_err(WorkError::Source)?;
        chain.writable.write(queue.memory(), offset, piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::ChipsetDevice as _;
    use virtio::testing::Driver;
    use virtio::testing::Interrupts;
    use virtio::testing::Machine;

    fn driver(rate: EntropyRate) -> Driver {
        let machine = Machine::new();
        let device = machine.plug(EntropyDevice::new(rate));
        Driver::new(&machine, device)
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
    fn a_guest_out_of_budget_does_not_hold_up_a_stop() {
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
