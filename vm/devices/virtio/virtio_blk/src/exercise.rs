//! A driver of block devices for tests, and one that follows a script, for fuzzing.

use crate::BlkConfig;
use crate::VirtioBlk;
use chipset_device::exercise::Script;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::MemoryDisk;
use std::sync::Arc;
use virtio::testing::GuestDriver;
use virtio::testing::Interrupts;
use virtio::testing::TestMachine;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// The GPA range of requests and data; rings are allocated from 1 MiB up, far below.
const ARENA: u64 = 16 << 20;
const ARENA_END: u64 = 32 << 20;

/// A guest with a block device.
pub struct Guest {
    /// The driver of the device.
    pub driver: GuestDriver,
    machine: TestMachine,
    next: u64,
}

/// A request that was added to a queue.
#[derive(Debug)]
pub struct Sent {
    data: u64,
    data_len: u32,
    status: u64,
}

/// The parts of a request.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The type.
    pub kind: u32,
    /// The first sector.
    pub sector: u64,
    /// Data for the device to read.
    pub data_out: Vec<u8>,
    /// Bytes of data for the device to write.
    pub data_in: u32,
}

impl Guest {
    /// Creates a guest with a device for `disk`, initialized with `features` and MSI-X.
    pub fn new(disk: Arc<dyn Disk>, config: BlkConfig, features: u64) -> Self {
        let machine = TestMachine::new();
        let device = machine.plug(VirtioBlk::new(disk, config));
        let mut driver = GuestDriver::new(&machine, device);
        driver.initialize(features, Interrupts::Msix);
        Self {
            driver,
            machine,
            next: ARENA,
        }
    }

    /// Allocates guest memory for a request; wraps around to that of the oldest requests.
    fn allocate(&mut self, len: u64) -> u64 {
        if self.next + len > ARENA_END {
            self.next = ARENA;
        }
        let gpa = self.next;
        self.next += len.next_multiple_of(16);
        gpa
    }

    fn store(&self, gpa: u64, bytes: &[u8]) {
        let stored = self
            .machine
            .memory
            .map()
            .write_slice(bytes, GuestAddress(gpa));
        assert!(stored.is_ok(), "not RAM: {gpa:#x}");
    }

    /// Adds a request to queue `queue`, with buffers split into pieces of `piece` bytes. Does not notify the device.
    pub fn send(&mut self, queue: u16, parts: &Parts, piece: u32) -> Sent {
        let mut readable = Vec::new();
        readable.extend(parts.kind.to_le_bytes());
        readable.extend([0; 4]);
        readable.extend(parts.sector.to_le_bytes());
        readable.extend(&parts.data_out);
        let from = self.allocate(readable.len() as u64);
        self.store(from, &readable);
        let data_len = parts.data_in;
        let data = self.allocate(u64::from(data_len) + 1);
        let status = data + u64::from(data_len);
        self.store(status, &[0xff]);
        let mut buffers = Vec::new();
        for (gpa, len, writable) in [
            (from, readable.len() as u32, false),
            (data, data_len + 1, true),
        ] {
            for at in (0..len).step_by(piece as usize) {
                buffers.push((gpa + u64::from(at), piece.min(len - at), writable));
            }
        }
        self.driver.rings[usize::from(queue)].add(&buffers);
        Sent {
            data,
            data_len,
            status,
        }
    }

    /// The status and data of a completed request.
    pub fn received(&self, sent: &Sent) -> (u8, Vec<u8>) {
        let status = self.driver.fetch(sent.status, 1)[0];
        let data = self.driver.fetch(sent.data, sent.data_len as usize);
        (status, data)
    }

    /// Makes a request on queue 0 and waits for its completion.
    pub fn request(&mut self, parts: &Parts) -> (u8, Vec<u8>) {
        let sent = self.send(0, parts, 4096);
        self.driver.notify(0);
        self.driver.wait_for_used(0);
        self.received(&sent)
    }
}

/// A GPA, mostly of the arena.
fn gpa(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        0 => script.u64(),
        high => ARENA + (u64::from(high) << 12) + u64::from(script.byte()),
    }
}

/// Performs the operations of `script` on a block device, and then checks that it still works.
pub fn run(script: &[u8]) {
    const SECTORS: u64 = 64;
    let mut script = Script(script);
    let access = match script.byte() % 4 {
        0 => DiskAccess::ReadOnly,
        _ => DiskAccess::ReadWrite,
    };
    let Ok(disk) = MemoryDisk::new(SECTORS * 512, access) else {
        return;
    };
    let Ok(config) = BlkConfig::default().with_serial("fuzz") else {
        return;
    };
    let features = !u64::from(script.u16());
    let mut guest = Guest::new(Arc::new(disk), config, features);
    // Few enough to take their descriptors from a ring with room.
    for _ in 0..32 {
        if script.0.is_empty() {
            break;
        }
        step(&mut guest, &mut script);
    }
    guest.driver.initialize(u64::MAX, Interrupts::Polled);
    let id = guest.request(&Parts {
        kind: 8,
        data_in: 20,
        ..Default::default()
    });
    assert_eq!((id.0, &id.1[..4]), (0, &b"fuzz"[..]));
}

fn step(guest: &mut Guest, script: &mut Script<'_>) {
    match script.byte() % 8 {
        // A request that is nearly valid.
        0..3 => {
            let kinds = [0, 1, 4, 8, 11, 13, 2, u32::from(script.byte())];
            let kind = kinds[usize::from(script.byte() % 8)];
            let len = u32::from(script.u16() % 4096);
            let parts = Parts {
                kind,
                sector: match script.byte() {
                    0 => script.u64(),
                    near => u64::from(near % 80),
                },
                data_out: match kind {
                    0 | 8 => Vec::new(),
                    _ => (0..len.min(600)).map(|_| script.byte()).collect(),
                },
                data_in: match kind {
                    0 | 8 => len,
                    _ => 0,
                },
            };
            let piece = 1 + u32::from(script.byte()) * 16;
            // At most half a ring of descriptors.
            let piece = piece.max((parts.data_out.len() as u32 + len) / 100);
            guest.send(0, &parts, piece);
            guest.driver.notify(0);
        }
        // An arbitrary chain.
        3 | 4 => {
            let count = usize::from(script.byte() % 6) + 1;
            let buffers: Vec<_> = (0..count)
                .map(|_| {
                    let gpa = gpa(script);
                    (gpa, u32::from(script.u16()), script.byte() & 1 == 1)
                })
                .collect();
            guest.driver.rings[0].add(&buffers);
            guest.driver.notify(0);
        }
        // Arbitrary heads and indices.
        5 => {
            let (head, index) = (script.u16(), script.u16());
            guest.driver.rings[0].add_head(head);
            guest.driver.rings[0].set_available_index(index);
            guest.driver.notify_by_write(0);
        }
        // The configuration.
        6 => {
            let (offset, value) = (u64::from(script.byte()), script.u64());
            let len = [1, 2, 4, 8][usize::from(script.byte() % 4)];
            // Both may fail.
            let _ = guest.driver.write_config(offset, len, value);
            let _ = guest.driver.read_config(offset, len);
        }
        // A reset, with requests in flight.
        _ => {
            guest
                .driver
                .initialize(!u64::from(script.u16()), Interrupts::Polled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_survives_scripts() {
        let mut state = 1u64;
        for _ in 0..200 {
            let script: Vec<u8> = (0..400)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            run(&script);
        }
        run(&[]);
    }
}
