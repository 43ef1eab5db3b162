use super::*;
use crate::config::MAX_RANGE_SECTORS;
use crate::exercise::Guest;
use crate::exercise::Parts;
use disk_backend::Completion;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use disk_backend::Faults;
use disk_backend::FaultyDisk;
use disk_backend::MemoryDisk;
use disk_backend::OverlayDisk;
use disk_file::Engine;
use disk_file::FileDisk;
use disk_file::FileOptions;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::os::fd::BorrowedFd;
use virtio::testing::GuestDriver;
use virtio::testing::Interrupts;
use virtio::testing::TestMachine;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const ALL: u64 = u64::MAX;
const SECTORS: u64 = 1024;

fn memory_disk(access: DiskAccess) -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::new(SECTORS * 512, access).unwrap())
}

fn guest() -> Guest {
    Guest::new(
        memory_disk(DiskAccess::ReadWrite),
        BlkConfig::default(),
        ALL,
    )
}

fn read(sector: u64, sectors: u32) -> Parts {
    Parts {
        kind: IN,
        sector,
        data_in: sectors * 512,
        ..Default::default()
    }
}

fn write(sector: u64, data: &[u8]) -> Parts {
    Parts {
        kind: OUT,
        sector,
        data_out: data.to_vec(),
        ..Default::default()
    }
}

fn flush() -> Parts {
    Parts {
        kind: FLUSH,
        ..Default::default()
    }
}

fn ranges(kind: u32, ranges: &[(u64, u32, u32)]) -> Parts {
    let mut data_out = Vec::new();
    for (sector, sectors, flags) in ranges {
        data_out.extend(sector.to_le_bytes());
        data_out.extend(sectors.to_le_bytes());
        data_out.extend(flags.to_le_bytes());
    }
    Parts {
        kind,
        data_out,
        ..Default::default()
    }
}

#[test]
fn requests_may_be_split_in_any_way() {
    // Without event indices, every batch interrupts.
    const EVENT_IDX: u64 = 1 << 29;
    let disk = memory_disk(DiskAccess::ReadWrite);
    let mut guest = Guest::new(disk, BlkConfig::default(), ALL & !EVENT_IDX);
    let data: Vec<u8> = (0..1024).map(|i| (i / 3) as u8).collect();
    for piece in [1 << 20, 512, 100, 17, 16, 5] {
        for (parts, expected) in [(write(7, &data), vec![]), (read(7, 2), data.clone())] {
            let sent = guest.send(0, &parts, piece);
            guest.driver.notify(0);
            guest.driver.wait_for_interrupt(0);
            let (_, written) = guest.driver.wait_for_used(0);
            assert_eq!(written, parts.data_in + 1);
            assert_eq!(guest.received(&sent), (OK, expected));
        }
        assert_eq!(guest.request(&ranges(WRITE_ZEROES, &[(7, 2, 0)])).0, OK);
    }
}

#[test]
fn invalid_requests_fail_and_the_next_one_works() {
    let mut guest = guest();
    let with_kind = |kind| Parts { kind, ..read(0, 1) };
    for (parts, status) in [
        (read(SECTORS - 1, 1), OK),
        (read(SECTORS, 1), IOERR),
        (read(SECTORS - 1, 2), IOERR),
        (read(u64::MAX, 1), IOERR),
        (read(1 << 55, 1), IOERR),
        (write(SECTORS, &[0; 512]), IOERR),
        (write(0, &[0; 511]), IOERR),
        (write(0, &[0; 513]), IOERR),
        (
            Parts {
                data_in: 100,
                ..read(0, 0)
            },
            IOERR,
        ),
        (read(0, 0), OK),
        (flush(), OK),
        (with_kind(2), UNSUPP),
        (with_kind(3), UNSUPP),
        (with_kind(14), UNSUPP),
        (with_kind(u32::MAX), UNSUPP),
        (ranges(DISCARD, &[]), IOERR),
        (ranges(DISCARD, &[(0, 8, 0)]), OK),
        (ranges(DISCARD, &[(0, 8, 1)]), UNSUPP),
        (ranges(DISCARD, &[(SECTORS, 8, 0)]), IOERR),
        (ranges(DISCARD, &[(u64::MAX, 8, 0)]), IOERR),
        (ranges(DISCARD, &[(0, 8, 0); 17]), IOERR),
        (ranges(WRITE_ZEROES, &[(0, 8, 0), (16, 8, 1)]), OK),
        (ranges(WRITE_ZEROES, &[(0, 8, 2)]), UNSUPP),
        (
            ranges(WRITE_ZEROES, &[(0, 8, 0), (SECTORS - 1, 2, 0)]),
            IOERR,
        ),
        (
            ranges(WRITE_ZEROES, &[(0, MAX_RANGE_SECTORS + 1, 0)]),
            IOERR,
        ),
        (
            Parts {
                data_out: vec![0; 15],
                ..ranges(DISCARD, &[])
            },
            IOERR,
        ),
    ] {
        assert_eq!(guest.request(&parts).0, status, "{parts:?}");
        assert_eq!(guest.request(&read(1, 1)).0, OK);
    }
}

#[test]
fn chains_without_a_header_or_status_are_completed() {
    let mut guest = guest();
    let (readable, writable) = (guest.driver.allocate(512), guest.driver.allocate(512));
    // No room for a status.
    guest.driver.rings[0].add(&[(readable, 16, false)]);
    // Headers that end early, and only a status.
    guest.driver.rings[0].add(&[(readable, 15, false), (writable, 513, true)]);
    guest.driver.rings[0].add(&[(writable + 511, 1, true)]);
    guest.driver.notify(0);
    assert_eq!(guest.driver.wait_for_used(0).1, 0);
    assert_eq!(guest.driver.wait_for_used(0).1, 513);
    assert_eq!(guest.driver.fetch(writable + 512, 1), [IOERR]);
    assert_eq!(guest.driver.wait_for_used(0).1, 1);
    assert_eq!(guest.driver.fetch(writable + 511, 1), [IOERR]);
    assert_eq!(guest.request(&read(0, 1)).0, OK);
}

#[test]
fn a_broken_ring_needs_a_reset_and_works_after_it() {
    let mut guest = guest();
    for bad in [
        // Outside of RAM.
        [(0x1_0000_0000, 16, false), (0x10_0000, 1, true)],
        // Read after write.
        [(0x10_0000, 16, true), (0x10_0000, 16, false)],
    ] {
        guest.driver.rings[0].add(&bad);
        guest.driver.notify(0);
        guest.driver.wait_for_needs_reset();
        guest.driver.initialize(ALL, Interrupts::Msix);
        assert_eq!(guest.request(&read(0, 1)).0, OK);
    }
}

#[test]
fn the_serial_number_is_readable() {
    let config = BlkConfig::default().with_serial("disk-0001").unwrap();
    let mut guest = Guest::new(memory_disk(DiskAccess::ReadWrite), config, ALL);
    let get_id = |data_in| Parts {
        kind: GET_ID,
        data_in,
        ..Default::default()
    };
    let (status, id) = guest.request(&get_id(20));
    assert_eq!(
        (status, &id[..]),
        (OK, &b"disk-0001\0\0\0\0\0\0\0\0\0\0\0"[..])
    );
    assert_eq!(guest.request(&get_id(4)), (OK, b"disk".to_vec()));
}

#[test]
fn a_read_only_disk_refuses_changes() {
    let mut guest = Guest::new(memory_disk(DiskAccess::ReadOnly), BlkConfig::default(), ALL);
    assert_ne!(guest.driver.offered() & 1 << 5, 0);
    assert_eq!(guest.request(&write(0, &[1; 512])).0, IOERR);
    assert_eq!(guest.request(&ranges(DISCARD, &[(0, 1, 0)])).0, UNSUPP);
    assert_eq!(guest.request(&ranges(WRITE_ZEROES, &[(0, 1, 0)])).0, UNSUPP);
    assert_eq!(guest.request(&flush()).0, OK);
    assert_eq!(guest.request(&read(0, 1)), (OK, vec![0; 512]));
}

#[test]
fn errors_of_the_disk_fail_only_their_requests() {
    let faults = Faults::default();
    let disk = FaultyDisk::new(memory_disk(DiskAccess::ReadWrite), faults.clone());
    let mut guest = Guest::new(Arc::new(disk), BlkConfig::default(), ALL);
    for parts in [
        read(0, 1),
        write(0, &[1; 512]),
        flush(),
        ranges(DISCARD, &[(0, 1, 0)]),
    ] {
        for errno in [5, 28] {
            faults.fail_next(1, errno);
            assert_eq!(guest.request(&parts).0, IOERR);
            assert_eq!(guest.request(&parts).0, OK);
        }
    }
    // One of several ranges.
    faults.fail_after(1, 1, 5);
    let three = ranges(WRITE_ZEROES, &[(0, 1, 0), (1, 1, 0), (2, 1, 0)]);
    assert_eq!(guest.request(&three).0, IOERR);
    // Many at once.
    faults.fail_next(100, 5);
    let sent: Vec<_> = (0..60).map(|i| guest.send(0, &read(i, 1), 512)).collect();
    guest.driver.notify(0);
    for sent in &sent {
        guest.driver.wait_for_used(0);
        let _ = sent;
    }
    assert!(sent.iter().all(|sent| guest.received(sent).0 == IOERR));
}

#[test]
fn a_failing_disk_queue_fails_its_requests_and_the_device() {
    let faults = Faults::default();
    let disk = FaultyDisk::new(memory_disk(DiskAccess::ReadWrite), faults.clone());
    let mut guest = Guest::new(Arc::new(disk), BlkConfig::default(), ALL);
    faults.break_queues();
    assert_eq!(guest.request(&read(0, 1)).0, IOERR);
    guest.driver.wait_for_needs_reset();
    // The device cannot be used again while no disk queue can be opened.
    guest.driver.initialize(ALL, Interrupts::Polled);
    guest.driver.wait_for_needs_reset();
}

/// A disk whose queue fails when the second operation completes, and reports the first one with the error.
struct FailingDisk(Arc<MemoryDisk>);

impl Disk for FailingDisk {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.0.flush()
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        struct Queue(Box<dyn DiskQueue>, Vec<Completion>);
        impl DiskQueue for Queue {
            fn submit(&mut self, token: u64, operation: DiskOperation) {
                self.0.submit(token, operation);
            }
            fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                self.wait(completions)
            }
            fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                self.0.wait(&mut self.1)?;
                if self.1.len() < 2 {
                    return Ok(());
                }
                completions.extend(self.1.drain(..1));
                Err(io::Error::other("the queue was made to fail"))
            }
        }
        let queue = self.0.clone().open_queue(depth, events)?;
        Ok(Box::new(Queue(queue, Vec::new())))
    }
}

#[test]
fn a_request_that_completed_before_the_disk_queue_failed_succeeds() {
    let disk = FailingDisk(memory_disk(DiskAccess::ReadWrite));
    let mut guest = Guest::new(Arc::new(disk), BlkConfig::default(), ALL);
    let sent = [0, 1].map(|sector| guest.send(0, &write(sector, &[1; 512]), 4096));
    guest.driver.notify(0);
    guest.driver.wait_for_needs_reset();
    for _ in &sent {
        guest.driver.wait_for_used(0);
    }
    let statuses = sent.map(|sent| guest.received(&sent).0);
    assert_eq!(statuses, [OK, IOERR]);
    assert_eq!(guest.driver.rings[0].take_used(), None);
}

/// A disk that records its operations.
struct RecordingDisk(Arc<MemoryDisk>, Arc<Mutex<Vec<&'static str>>>);

impl Disk for RecordingDisk {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.0.flush()
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        struct Queue(Box<dyn DiskQueue>, Arc<Mutex<Vec<&'static str>>>);
        impl DiskQueue for Queue {
            fn submit(&mut self, token: u64, operation: DiskOperation) {
                self.1.lock().push(operation.name());
                self.0.submit(token, operation);
            }
            fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                self.0.poll(completions)
            }
            fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
                self.0.wait(completions)
            }
        }
        let queue = self.0.clone().open_queue(depth, events)?;
        Ok(Box::new(Queue(queue, self.1.clone())))
    }
}

#[test]
fn writes_are_flushed_for_drivers_that_do_not_flush() {
    let notes = Arc::<Mutex<Vec<_>>>::default();
    let disk = RecordingDisk(memory_disk(DiskAccess::ReadWrite), notes.clone());
    let mut guest = Guest::new(Arc::new(disk), BlkConfig::default(), ALL);
    let operations = |guest: &mut Guest| {
        assert_eq!(guest.request(&write(0, &[1; 512])).0, OK);
        assert_eq!(guest.request(&read(0, 1)).0, OK);
        std::mem::take(&mut *notes.lock())
    };
    const FLUSH_FEATURE: u64 = 1 << 9;
    const CONFIG_WCE: u64 = 1 << 11;
    assert_eq!(guest.driver.read_config(32, 1).unwrap(), 1);
    assert_eq!(operations(&mut guest), ["write", "read"]);
    guest.driver.write_config(32, 1, 0).unwrap();
    assert_eq!(guest.driver.read_config(32, 1).unwrap(), 0);
    assert_eq!(operations(&mut guest), ["write", "flush", "read"]);
    // A reset restores the default.
    guest.driver.initialize(ALL, Interrupts::Polled);
    assert_eq!(operations(&mut guest), ["write", "read"]);
    guest
        .driver
        .initialize(ALL & !FLUSH_FEATURE, Interrupts::Polled);
    assert_eq!(operations(&mut guest), ["write", "flush", "read"]);
    guest
        .driver
        .initialize(ALL & !CONFIG_WCE, Interrupts::Polled);
    guest.driver.write_config(32, 1, 0).unwrap();
    assert_eq!(operations(&mut guest), ["write", "read"]);
}

#[test]
fn the_caching_mode_is_saved() {
    let new = || VirtioBlk::new(memory_disk(DiskAccess::ReadWrite), BlkConfig::default());
    let mut device = new();
    device.write_config(WRITEBACK_OFFSET, &[0]);
    let state = device.save().unwrap().unwrap();
    let mut restored = new();
    restored.restore(Some(&state)).unwrap();
    let mut value = [9];
    restored.read_config(WRITEBACK_OFFSET, &mut value);
    assert_eq!(value, [0]);
    assert!(restored.restore(None).is_err());
    assert!(
        restored
            .restore(Some(&SavedState::from_bytes(vec![0xff])))
            .is_err()
    );
    restored.read_config(WRITEBACK_OFFSET, &mut value);
    assert_eq!(value, [0]);
}

#[test]
fn requests_added_while_stopped_are_processed_after_a_start() {
    let mut guest = guest();
    assert_eq!(guest.request(&write(3, &[5; 512])).0, OK);
    // Added and notified while the device is stopped.
    use chipset_device::ChipsetDevice as _;
    guest.driver.device.stop();
    let sent = guest.send(0, &read(3, 1), 4096);
    guest.driver.notify(0);
    guest.driver.device.start();
    guest.driver.wait_for_used(0);
    assert_eq!(guest.received(&sent), (OK, vec![5; 512]));
}

#[test]
fn a_stop_waits_for_requests_in_flight() {
    use chipset_device::ChipsetDevice as _;
    let dir = tempfile::tempdir().unwrap();
    let disk = file_disk(dir.path(), Engine::Auto);
    let mut guest = Guest::new(disk, BlkConfig::default(), ALL);
    for round in 0..20 {
        let sent: Vec<_> = (0..50)
            .map(|i| guest.send(0, &write(i * 8, &[round; 4096]), 4096))
            .collect();
        guest.driver.notify(0);
        guest.driver.device.stop();
        let mut used = 0;
        while guest.driver.rings[0].take_used().is_some() {
            used += 1;
        }
        // The others have not been taken: none is in flight.
        let ended = sent.iter().filter(|sent| guest.received(sent).0 == OK);
        assert_eq!(ended.count(), used);
        guest.driver.device.start();
        for _ in used..50 {
            guest.driver.wait_for_used(0);
        }
        assert!(sent.iter().all(|sent| guest.received(sent).0 == OK));
    }
}

#[test]
fn a_chain_that_is_available_twice_is_processed_twice() {
    let mut guest = guest();
    let sent = guest.send(0, &read(0, 1), 4096);
    for _ in 0..300 {
        guest.driver.rings[0].add_head(0);
        guest.driver.notify(0);
        guest.driver.wait_for_used(0);
    }
    guest.driver.wait_for_used(0);
    assert_eq!(guest.received(&sent).0, OK);
}

fn file_disk(dir: &std::path::Path, engine: Engine) -> Arc<FileDisk> {
    let path = dir.join(format!("{engine:?}.img"));
    std::fs::write(&path, vec![0; SECTORS as usize * 512]).unwrap();
    let options = FileOptions {
        engine,
        ..Default::default()
    };
    Arc::new(FileDisk::open(&path, options).unwrap())
}

#[derive(Debug, Clone)]
struct Step {
    queue: u16,
    kind: u8,
    sector: u64,
    sectors: u64,
    piece: u32,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (0..4u16, any::<u8>(), 0..SECTORS, 1..32u64, 100..5000u32).prop_map(
        |(queue, kind, sector, sectors, piece)| Step {
            queue,
            kind,
            sector,
            sectors: sectors.min(SECTORS - sector),
            piece: piece.max(512),
        },
    );
    prop::collection::vec(prop::collection::vec(step, 1..4), 1..24)
}

/// Makes batches of requests on four queues, and compares the disk with a model. Skips requests that overlap others of
/// their batch, since they may be done in any order.
fn compare(disk: Arc<dyn Disk>, batches: &[Vec<Step>]) {
    let config = BlkConfig::default().with_queues(4).unwrap();
    let mut guest = Guest::new(disk, config, ALL);
    let mut content = vec![0; SECTORS as usize * 512];
    for batch in batches {
        let mut done: Vec<std::ops::Range<u64>> = Vec::new();
        let mut sent = Vec::new();
        for step in batch {
            let range = step.sector..step.sector + step.sectors;
            if done
                .iter()
                .any(|r| r.start < range.end && range.start < r.end)
            {
                continue;
            }
            let bytes = range.start as usize * 512..range.end as usize * 512;
            let sectors = step.sectors as u32;
            let parts = match step.kind % 4 {
                0 | 1 => read(step.sector, sectors),
                2 => {
                    content[bytes.clone()].fill(step.kind);
                    write(step.sector, &content[bytes.clone()])
                }
                _ => {
                    content[bytes.clone()].fill(0);
                    let flags = u32::from(step.kind & 4 != 0);
                    ranges(WRITE_ZEROES, &[(step.sector, sectors, flags)])
                }
            };
            done.push(range);
            let request = guest.send(step.queue, &parts, step.piece);
            sent.push((step.queue, request, parts.kind, bytes));
        }
        for (queue, ..) in &sent {
            guest.driver.notify(*queue);
        }
        for (queue, ..) in &sent {
            guest.driver.wait_for_used(*queue);
        }
        for (_, request, kind, bytes) in sent {
            let (status, data) = guest.received(&request);
            assert_eq!(status, OK);
            assert!(kind != IN || data == content[bytes]);
        }
    }
    for sector in (0..SECTORS).step_by(64) {
        let (_, data) = guest.request(&read(sector, 64));
        assert!(data == content[sector as usize * 512..][..64 * 512]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_disk_behaves_as_the_model(batches in steps()) {
        compare(memory_disk(DiskAccess::ReadWrite), &batches);
        compare(Arc::new(OverlayDisk::new(memory_disk(DiskAccess::ReadOnly))), &batches);
        let dir = tempfile::tempdir().unwrap();
        compare(file_disk(dir.path(), Engine::Auto), &batches);
        compare(file_disk(dir.path(), Engine::Threads), &batches);
    }
}

#[test]
fn a_driver_may_poll_without_interrupts() {
    let machine = TestMachine::new();
    let disk = memory_disk(DiskAccess::ReadWrite);
    let device = machine.plug(VirtioBlk::new(disk, BlkConfig::default()));
    let mut driver = GuestDriver::new(&machine, device);
    // VERSION_1 and BLK_SIZE only.
    driver.initialize(1 << 32 | 1 << 6, Interrupts::Polled);
    assert_eq!(driver.read_config(0, 8).unwrap(), SECTORS);
    let header = driver.place(&[0; 16]);
    let data = driver.allocate(513);
    driver.rings[0].add(&[
        (header, 16, false),
        (data, 512, true),
        (data + 512, 1, true),
    ]);
    driver.notify(0);
    assert_eq!(driver.wait_for_used(0).1, 513);
    assert_eq!(driver.fetch(data + 512, 1), [OK]);
}
