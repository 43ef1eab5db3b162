use super::*;
use crate::Atomicity;
use crate::FileStorage;
use crate::MemoryStorage;
use crate::exercise::Record;
use crate::exercise::RecordingStorage;
use crate::exercise::Shown;
use crate::exercise::config;
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

const SIZE: usize = 3 * BLOCK_SIZE;

struct Chip {
    flash: Flash,
    shown: Arc<Shown>,
}

impl Chip {
    fn new(content: Vec<u8>, storage: impl FlashStorage) -> Self {
        let (config, shown) = config(content.len());
        let mut flash = Flash::variables(config, content, storage).unwrap();
        flash.start();
        Self { flash, shown }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let gpa = self.flash.gpa() + offset;
        self.flash.write_mmio(gpa, bytes).unwrap();
    }

    /// Reads like a guest: from the memory while it is mapped, otherwise from the device.
    fn read(&mut self, offset: u64) -> u8 {
        let mut byte = [0];
        if self.shown.0.load(Ordering::Relaxed) {
            self.flash.load(offset, &mut byte);
        } else {
            let gpa = self.flash.gpa() + offset;
            self.flash.read_mmio(gpa, &mut byte).unwrap();
        }
        byte[0]
    }

    fn program(&mut self, offset: u64, value: u8) {
        self.write(offset, &[0x10]);
        self.write(offset, &[value]);
    }

    fn erase(&mut self, offset: u64) {
        self.write(offset, &[0x20]);
        self.write(offset, &[0xd0]);
    }
}

fn recording(atomicity: Atomicity) -> (RecordingStorage, Record, Arc<AtomicBool>) {
    let (record, broken) = (Record::default(), Arc::default());
    let storage = RecordingStorage {
        atomicity,
        record: Arc::clone(&record),
        broken: Arc::clone(&broken),
    };
    (storage, record, broken)
}

#[test]
fn a_driver_can_tell_that_it_is_flash() {
    let mut chip = Chip::new(vec![0x11; SIZE], MemoryStorage);
    assert!(chip.shown.0.load(Ordering::Relaxed));
    // Neither RAM, which would have kept it...
    chip.write(5, &[0x50]);
    assert_eq!(chip.read(5), 0x11);
    // Nor ROM, which would not have changed.
    chip.write(5, &[0x70]);
    assert_eq!(chip.read(5), 0);
    chip.write(5, &[0x90]);
    assert_eq!((chip.read(0), chip.read(1)), (0x89, 0xa2));
    chip.write(5, &[0xff]);
    assert_eq!(chip.read(5), 0x11);
    assert!(chip.shown.0.load(Ordering::Relaxed));
}

#[test]
fn bytes_are_programmed_and_blocks_erased() {
    let mut chip = Chip::new(vec![0x11; SIZE], MemoryStorage);
    chip.program(4095, 0xf0);
    // A command and its data in one write.
    chip.write(4096, &[0x40, 0x10, 0xff]);
    assert_eq!(
        (chip.read(4095), chip.read(4096), chip.read(4097)),
        (0xf0, 0x11, 0x10)
    );
    chip.erase(4100);
    assert_eq!(
        (
            chip.read(4095),
            chip.read(4096),
            chip.read(8191),
            chip.read(8192)
        ),
        (0xf0, 0xff, 0xff, 0x11)
    );
    // The status is ready without errors, until it is cleared.
    chip.write(0, &[0x70]);
    assert_eq!(chip.read(0), 0x80);
    // An erase that is not confirmed does nothing and sets error bits.
    chip.write(0, &[0x20]);
    chip.write(0, &[0xff]);
    assert_eq!(chip.read(0), 0x11);
    chip.write(0, &[0x70]);
    assert_eq!(chip.read(0), 0xb0);
    // Each command says alone that it has ended.
    let mut status_after = |command: &dyn Fn(&mut Chip)| {
        chip.write(0, &[0x50]);
        command(&mut chip);
        chip.write(0, &[0x70]);
        chip.read(0)
    };
    assert_eq!(status_after(&|_| ()), 0);
    assert_eq!(status_after(&|chip| chip.program(0, 0)), 0x80);
    assert_eq!(status_after(&|chip| chip.erase(0)), 0x80);
    let not_confirmed = status_after(&|chip| chip.write(0, &[0x20, 0xff]));
    assert_eq!(not_confirmed, 0xb0);
}

#[test]
fn a_rom_ignores_commands() {
    let (config, shown) = config(SIZE);
    let mut flash = Flash::rom(config, &[0x11; SIZE]).unwrap();
    flash.start();
    let gpa = flash.gpa();
    for bytes in [&[0x10, 0x00][..], &[0x20, 0xd0], &[0x70], &[0x90]] {
        flash.write_mmio(gpa, bytes).unwrap();
    }
    let mut data = [0; 8];
    flash.read_mmio(gpa, &mut data).unwrap();
    assert_eq!(data, [0x11; 8]);
    assert!(shown.0.load(Ordering::Relaxed));
    assert!(flash.control().is_none());
}

#[test]
fn accesses_past_the_end_are_refused() {
    let mut chip = Chip::new(vec![0x11; SIZE], MemoryStorage);
    let (start, end) = (chip.flash.gpa(), chip.flash.gpa() + SIZE as u64);
    let flash = &mut chip.flash;
    for gpa in [start - 4, end - 4, end, u64::MAX] {
        assert!(flash.read_mmio(gpa, &mut [0; 8]).is_err(), "{gpa:#x}");
        assert!(flash.write_mmio(gpa, &[0x10; 8]).is_err(), "{gpa:#x}");
    }
    assert_eq!(flash.content(), [0x11; SIZE]);
    assert_eq!(flash.fixed_resources().mmio, [start..=end - 1]);
}

#[test]
fn images_of_invalid_sizes_are_refused() {
    for len in [0, 1, BLOCK_SIZE + 1, MAX_SIZE as usize + BLOCK_SIZE] {
        let (config, _) = config(BLOCK_SIZE);
        let result = Flash::rom(config, &vec![0; len]);
        assert!(matches!(result, Err(FlashError::Size { len: l, .. }) if l == len));
    }
    let (config, _) = config(BLOCK_SIZE);
    let result = Flash::variables(config, vec![0; 2 * BLOCK_SIZE], MemoryStorage);
    assert!(matches!(result, Err(FlashError::Region { .. })));
}

#[test]
fn content_survives_a_reset_and_the_mode_does_not() {
    let mut chip = Chip::new(vec![0x11; SIZE], MemoryStorage);
    chip.program(0, 0x22);
    chip.write(0, &[0x70]);
    chip.flash.reset();
    assert_eq!(chip.read(0), 0x22);
    assert!(chip.shown.0.load(Ordering::Relaxed));
    // A reset between a command and its data cancels the command.
    chip.write(0, &[0x10]);
    chip.flash.reset();
    chip.write(0, &[0x33]);
    assert_eq!(chip.read(0), 0x22);
}

#[test]
fn a_file_has_all_changes_when_the_device_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("VARS.fd");
    let (storage, content) = FileStorage::create(&path, &[0xff; SIZE]).unwrap();
    let mut chip = Chip::new(content, storage);
    chip.program(10, 1);
    chip.program(5000, 2);
    chip.program(11, 3);
    chip.erase(9000);
    chip.flash.stop();
    let mut expected = vec![0xff; SIZE];
    expected[10] = 1;
    expected[11] = 3;
    expected[5000] = 2;
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    assert_eq!(chip.flash.inspect()["storage"]["synchronized"], true);

    // And when the device is dropped without being stopped.
    chip.flash.start();
    chip.program(12, 4);
    drop(chip);
    expected[12] = 4;
    let (_storage, content) = FileStorage::open(&path).unwrap();
    assert_eq!(content, expected);
}

#[test]
fn blocks_are_stored_one_by_one_in_order() {
    let (storage, record, _) = recording(Atomicity::Block);
    let mut chip = Chip::new(vec![0xff; SIZE], storage);
    for round in 0..20 {
        chip.program(round, 1);
        chip.program(4096 + round, 2);
    }
    chip.flash.stop();
    let record = record.lock();
    assert_eq!(record.len(), 40);
    for (i, step) in record.iter().enumerate() {
        let [(offset, block)] = &step[..] else {
            panic!("{} blocks at once", step.len());
        };
        assert_eq!(*offset, (i as u64 % 2) * 4096);
        let written = block.iter().filter(|byte| **byte != 0xff).count();
        assert_eq!(written, i / 2 + 1);
    }
}

#[test]
fn changes_are_stored_without_a_flush() {
    let (storage, record, _) = recording(Atomicity::Image);
    let mut chip = Chip::new(vec![0xff; SIZE], storage);
    chip.program(0, 1);
    while record.lock().is_empty() {
        std::thread::yield_now();
    }
    chip.flash.reset();
}

#[test]
fn a_failing_storage_does_not_stop_the_guest_and_is_retried() {
    let (storage, record, broken) = recording(Atomicity::Block);
    let mut chip = Chip::new(vec![0xff; SIZE], storage);
    broken.store(true, Ordering::Relaxed);
    chip.program(0, 1);
    chip.program(4096, 2);
    let control = chip.flash.control().unwrap();
    let error = control.flush().unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot save the firmware variables of `variables` in a record: broken"
    );
    chip.flash.stop();
    let shown = &chip.flash.inspect()["storage"];
    assert_eq!(shown["synchronized"], false);
    assert_eq!(shown["pending_blocks"], 2);
    assert_eq!(shown["last_error"], "broken");
    // Many more than the queue keeps in order.
    for round in 0..3000 {
        chip.program(round % 2 * 4096 + 1, round as u8);
    }
    assert!(control.status().reordered > 0);
    assert_eq!(chip.read(1), 2998_u32 as u8);

    broken.store(false, Ordering::Relaxed);
    control.flush().unwrap();
    let status = control.status();
    assert_eq!((status.pending_blocks, status.last_error), (0, None));
    let mut image = vec![0xff; SIZE];
    for (offset, block) in record.lock().iter().flatten() {
        image[*offset as usize..][..BLOCK_SIZE].copy_from_slice(block);
    }
    assert!(image == chip.flash.content());
}

#[test]
fn a_flush_fails_after_the_storage_was_closed() {
    let (storage, _, broken) = recording(Atomicity::Image);
    let mut chip = Chip::new(vec![0xff; SIZE], storage);
    broken.store(true, Ordering::Relaxed);
    let control = chip.flash.control().unwrap();
    chip.program(0, 1);
    drop(chip);
    control.flush().unwrap_err();
}

#[test]
fn a_restore_also_updates_the_storage() {
    let (storage, ..) = recording(Atomicity::Block);
    let mut chip = Chip::new(vec![0x11; SIZE], storage);
    chip.program(7, 0x77);
    chip.write(0, &[0x10]);
    chip.flash.stop();
    let state = chip.flash.save().unwrap();

    let (storage, record, _) = recording(Atomicity::Block);
    let mut other = Chip::new(vec![0x11; SIZE], storage);
    other.program(8000, 0x88);
    other.flash.stop();
    other.flash.restore(&state).unwrap();
    other.flash.start();
    assert_eq!((other.read(7), other.read(8000)), (0x77, 0x11));
    // It continues in the middle of a command.
    other.write(9, &[0x99]);
    assert_eq!(other.read(9), 0x99);
    other.flash.stop();
    let mut image = vec![0x11; SIZE];
    for (offset, block) in record.lock().iter().flatten() {
        image[*offset as usize..][..BLOCK_SIZE].copy_from_slice(block);
    }
    assert!(image == other.flash.content());

    let mut small = Chip::new(vec![0x11; BLOCK_SIZE], MemoryStorage);
    let error = small.flash.restore(&state).unwrap_err();
    assert!(error.to_string().contains("12288 bytes"), "{error}");
    let (config, _) = config(SIZE);
    let mut rom = Flash::rom(config, &[0x11; SIZE]).unwrap();
    rom.restore(&state).unwrap_err();
    assert_eq!(rom.content(), [0x11; SIZE]);
}

/// A simple model of a chip.
struct Model {
    content: Vec<u8>,
    first: Option<u8>,
}

impl Model {
    fn write(&mut self, at: usize, value: u8) {
        match (self.first.take(), value) {
            (Some(0x10 | 0x40), _) => self.content[at] = value,
            (Some(_), 0xd0) => self.content[at - at % 4096..][..4096].fill(0xff),
            (None, 0x10 | 0x40 | 0x20) => self.first = Some(value),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_chip_behaves_like_the_model(
        writes in proptest::collection::vec(
            (
                0..SIZE,
                prop_oneof![
                    Just(0x10_u8), Just(0x40), Just(0x20), Just(0xd0), Just(0x50), Just(0x70), Just(0x90),
                    Just(0xff), any::<u8>(),
                ],
            ),
            0..60,
        ),
    ) {
        let mut chip = Chip::new(vec![0x11; SIZE], MemoryStorage);
        let mut model = Model { content: vec![0x11; SIZE], first: None };
        for (at, value) in writes {
            chip.write(at as u64, &[value]);
            model.write(at, value);
        }
        prop_assert!(chip.flash.content() == model.content);
    }
}
