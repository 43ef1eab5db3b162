use super::*;
use crate::BlkConfig;
use crate::exercise::Guest;
use crate::exercise::Parts;
use crate::exercise::Sent;
use chipset_device::ChipsetDevice as _;
use disk_backend::DiskAccess;
use disk_backend::DiskInfo;
use disk_backend::EventSet;
use disk_backend::MemoryDisk;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::os::fd::BorrowedFd;

const MIB: u64 = 1 << 20;
const OK: u8 = 0;
const IOERR: u8 = 1;
/// What a test stores in the status of a request before it sends it.
const NONE: u8 = 0xff;

#[derive(Default)]
struct Record {
    /// The length of each operation, in order.
    lens: Vec<u64>,
    in_flight: u64,
    most: u64,
    /// Operations no longer wait for a stop.
    released: bool,
}

/// A disk whose operations begin when the device is stopped while they are in flight.
struct HeldDisk {
    inner: Arc<MemoryDisk>,
    record: Mutex<Record>,
    changed: Condvar,
}

impl HeldDisk {
    fn new(inner: Arc<MemoryDisk>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            record: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn wait_for(&self, bytes: u64) {
        let mut record = self.record.lock();
        while record.in_flight < bytes {
            self.changed.wait(&mut record);
        }
    }
}

impl Disk for HeldDisk {
    fn info(&self) -> &DiskInfo {
        self.inner.info()
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        Ok(Box::new(HeldQueue {
            inner: self.inner.clone().open_queue(depth, &[])?,
            held: Vec::new(),
            stopping: EventSet::new(&events[1..])?,
            events: EventSet::new(events)?,
            disk: self,
        }))
    }
}

struct HeldQueue {
    disk: Arc<HeldDisk>,
    inner: Box<dyn DiskQueue>,
    held: Vec<(u64, DiskOperation)>,
    events: EventSet,
    stopping: EventSet,
}

impl DiskQueue for HeldQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        let len = operation.extent().len;
        let mut record = self.disk.record.lock();
        record.lens.push(len);
        record.in_flight += len;
        record.most = record.most.max(record.in_flight);
        self.held.push((token, operation));
        self.disk.changed.notify_all();
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let mut record = self.disk.record.lock();
        if record.released {
            for (token, operation) in self.held.drain(..) {
                record.in_flight -= operation.extent().len;
                self.inner.submit(token, operation);
            }
        }
        self.inner.poll(completions)
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let released = self.disk.record.lock().released;
        if self.held.is_empty() {
            self.events.wait()?;
        } else if !released {
            self.stopping.wait()?;
            self.disk.record.lock().released = true;
            // The worker sees that it must stop before anything completes.
            return Ok(());
        }
        self.poll(completions)
    }
}

fn memory_disk(mib: u64) -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::new(mib * MIB, DiskAccess::ReadWrite).unwrap())
}

fn guest(disk: &Arc<HeldDisk>) -> Guest {
    Guest::new(disk.clone(), BlkConfig::default(), u64::MAX)
}

fn write(mib: u64, len: u64) -> Parts {
    Parts {
        kind: 1,
        sector: mib * MIB / 512,
        data_out: vec![mib as u8 + 1; len as usize],
        ..Parts::default()
    }
}

fn statuses(guest: &Guest, sent: &[Sent]) -> Vec<u8> {
    sent.iter().map(|sent| guest.received(sent).0).collect()
}

#[test]
fn a_stop_waits_for_bounded_bytes_and_leaves_the_rest_to_the_next_start() {
    let memory = memory_disk(16);
    let disk = HeldDisk::new(memory.clone());
    let mut guest = guest(&disk);
    let send = |n: u64| guest.send(0, &write(3 * n, 3 * MIB), MIB as u32);
    let sent: Vec<_> = (0..4).map(send).collect();
    guest.driver.notify(0);
    disk.wait_for(4 * MIB);
    guest.driver.device.stop();
    // One request was completed. Of the second, a third was done; the others were not looked at.
    assert_eq!(disk.record.lock().lens, [MIB; 4]);
    assert_eq!(statuses(&guest, &sent), [OK, NONE, NONE, NONE]);
    let queue = &guest.driver.device.inspect()["queues"][0];
    assert_eq!(queue["next_available"], 1);
    assert_eq!(queue["next_used"], 1);
    guest.driver.device.start();
    for _ in &sent {
        guest.driver.wait_for_used(0);
    }
    assert_eq!(statuses(&guest, &sent), [OK; 4]);
    assert_eq!(guest.driver.rings[0].take_used(), None);
    let mut client = disk_backend::exercise::Client::new(memory);
    for n in 0..4 {
        let written = client.read(3 * n * MIB, 3 * MIB).unwrap();
        assert!(written.iter().all(|&byte| byte == 3 * n as u8 + 1));
    }
    assert_eq!(disk.record.lock().most, 4 * MIB);
}

#[test]
fn zeroes_and_discards_are_done_in_parts() {
    for (kind, lens) in [(13, vec![8 * MIB; 1]), (11, vec![64 * MIB; 4])] {
        let disk = HeldDisk::new(memory_disk(16 << 10));
        let mut guest = guest(&disk);
        let mut data_out = Vec::new();
        for n in 0..16u64 {
            data_out.extend((n << 21).to_le_bytes());
            data_out.extend((1u32 << 21).to_le_bytes());
            data_out.extend([0; 4]);
        }
        let parts = Parts {
            kind,
            data_out,
            ..Parts::default()
        };
        let sent = [guest.send(0, &parts, 4096)];
        guest.driver.notify(0);
        disk.wait_for(lens.iter().sum());
        guest.driver.device.stop();
        assert_eq!(disk.record.lock().lens, lens);
        assert_eq!(statuses(&guest, &sent), [NONE]);
        guest.driver.device.start();
        guest.driver.wait_for_used(0);
        assert_eq!(statuses(&guest, &sent), [OK]);
        let done: u64 = disk.record.lock().lens.iter().sum();
        assert_eq!(done, (16 << 30) + lens.iter().sum::<u64>());
    }
}

#[test]
fn a_large_request_beyond_the_end_changes_nothing() {
    let disk = HeldDisk::new(memory_disk(4));
    disk.record.lock().released = true;
    let mut guest = guest(&disk);
    let sent = [guest.send(0, &write(2, 3 * MIB), MIB as u32)];
    guest.driver.notify(0);
    guest.driver.wait_for_used(0);
    assert_eq!(statuses(&guest, &sent), [IOERR]);
    assert!(disk.record.lock().lens.is_empty());
}

#[test]
fn the_rest_of_a_failed_request_is_not_done() {
    let faults = disk_backend::Faults::default();
    let disk = HeldDisk::new(memory_disk(16));
    disk.record.lock().released = true;
    let faulty = disk_backend::FaultyDisk::new(disk.clone(), faults.clone());
    let mut guest = Guest::new(Arc::new(faulty), BlkConfig::default(), u64::MAX);
    faults.fail_next(1, 5);
    // Its parts are started one by one, as a disk may copy them at once.
    let sent = [guest.send(0, &write(0, 8 * MIB), MIB as u32)];
    guest.driver.notify(0);
    guest.driver.wait_for_used(0);
    assert_eq!(statuses(&guest, &sent), [IOERR]);
    assert!(disk.record.lock().lens.is_empty());
    let sent = [guest.send(0, &write(0, MIB), MIB as u32)];
    guest.driver.notify(0);
    guest.driver.wait_for_used(0);
    assert_eq!(statuses(&guest, &sent), [OK]);
}
