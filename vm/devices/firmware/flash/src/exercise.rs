//! Drives chips with a script of arbitrary operations, for fuzzing and tests.

use crate::Atomicity;
use crate::BLOCK_SIZE;
use crate::Flash;
use crate::FlashConfig;
use crate::FlashStorage;
use crate::MemoryStorage;
use crate::Update;
use chipset_device::ChipsetDevice as _;
use chipset_device::RomMapping;
use chipset_device::exercise::exercise;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

const GPA: u64 = 0xffc8_4000;
const BLOCKS: usize = 4;
const SIZE: usize = BLOCKS * BLOCK_SIZE;

/// Records whether the memory is mapped.
#[derive(Debug, Default)]
pub(crate) struct Shown(pub(crate) AtomicBool);

impl RomMapping for Shown {
    fn show(&self) -> std::io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn hide(&self) -> std::io::Result<()> {
        self.0.store(false, Ordering::Relaxed);
        Ok(())
    }
}

pub(crate) fn config(size: usize) -> (FlashConfig, Arc<Shown>) {
    let shown = Arc::new(Shown::default());
    let region = guest_memory::device_region(GPA, size as u64).expect("the host has memory");
    let config = FlashConfig {
        name: "variables".into(),
        region,
        mapping: shown.clone(),
    };
    (config, shown)
}

/// The updates of a storage, in order.
pub(crate) type Record = Arc<Mutex<Vec<Vec<(u64, Vec<u8>)>>>>;

/// Records updates, and fails on demand.
#[derive(Debug)]
pub(crate) struct RecordingStorage {
    pub(crate) atomicity: Atomicity,
    pub(crate) record: Record,
    pub(crate) broken: Arc<AtomicBool>,
}

impl FlashStorage for RecordingStorage {
    fn atomicity(&self) -> Atomicity {
        self.atomicity
    }

    fn persist(&mut self, update: Update<'_>) -> Result<(), crate::storage::FlashStorageError> {
        // An update that fails may have been stored.
        let changes = update.changes();
        let changes = changes.map(|(offset, block)| (offset, block.to_vec()));
        self.record.lock().push(changes.collect());
        if self.broken.load(Ordering::Relaxed) {
            return Err("broken".into());
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "a record".into()
    }
}

/// A ROM and a writable chip, with accesses of all kinds.
pub fn flash(script: &[u8]) {
    let content: Vec<u8> = (0..SIZE).map(|i| (i / 7) as u8).collect();
    let (rom, _) = config(SIZE);
    let mut rom = Flash::rom(rom, &content).expect("a fixed chip");
    exercise(&mut rom, script, &mut |_| ());
    let (variables, shown) = config(SIZE);
    let mut variables = Flash::variables(variables, content, MemoryStorage).expect("a fixed chip");
    exercise(&mut variables, script, &mut |_| ());
    let _ = variables.write_mmio(GPA, &[0x70]);
    // Again, because the first write may have been a byte to program or an erase to confirm.
    let _ = variables.write_mmio(GPA, &[0x70]);
    assert!(!shown.0.load(Ordering::Relaxed), "unmapped in status mode");
    let _ = variables.write_mmio(GPA, &[0xff]);
    assert!(shown.0.load(Ordering::Relaxed), "mapped in array mode");
}

/// Programs and erases a chip, while its storage works, fails and is flushed. Checks that after any number of writes to
/// the storage its content is one that the chip had, and a later one the more writes there were.
pub fn crash(script: &[u8]) {
    let atomicity = match script.first() {
        Some(first) if first % 2 == 0 => Atomicity::Image,
        _ => Atomicity::Block,
    };
    let record = Record::default();
    let broken = Arc::new(AtomicBool::new(false));
    let storage = RecordingStorage {
        atomicity,
        record: record.clone(),
        broken: broken.clone(),
    };
    let (config, _) = config(SIZE);
    let mut flash = Flash::variables(config, vec![0; SIZE], storage).expect("a fixed chip");
    let control = flash.control().expect("it can be written");
    flash.start();
    let mut content = vec![0; SIZE];
    let mut history = vec![content.clone()];
    for op in script.chunks_exact(4) {
        let offset = usize::from(u16::from_le_bytes([op[1], op[2]])) % SIZE;
        let at = GPA + offset as u64;
        match op[0] % 16 {
            0..=10 => {
                let _ = flash.write_mmio(at, &[0x10]);
                let _ = flash.write_mmio(at, &op[3..]);
                content[offset] = op[3];
            }
            11 | 12 => {
                let _ = flash.write_mmio(at, &[0x20]);
                let _ = flash.write_mmio(at, &[0xd0]);
                let start = offset - offset % BLOCK_SIZE;
                content[start..start + BLOCK_SIZE].fill(0xff);
            }
            13 => broken.store(true, Ordering::Relaxed),
            14 => broken.store(false, Ordering::Relaxed),
            _ => {
                let failed = control.flush().is_err();
                assert!(!failed || broken.load(Ordering::Relaxed), "a flush fails");
            }
        }
        if history.last() != Some(&content) {
            history.push(content.clone());
        }
    }
    broken.store(false, Ordering::Relaxed);
    flash.stop();
    assert_eq!(
        control.status().pending_blocks,
        0,
        "a stop stores all changes"
    );
    assert_eq!(
        control.status().reordered,
        0,
        "the queue has room for all changes"
    );
    let record = record.lock();
    match atomicity {
        Atomicity::Image => check_record(&record, &history),
        // The power may fail between any two blocks.
        Atomicity::Block => {
            let blocks = record.iter().flatten().cloned();
            check_record(
                &blocks.map(|block| vec![block]).collect::<Vec<_>>(),
                &history,
            );
        }
    }
}

fn check_record(record: &[Vec<(u64, Vec<u8>)>], history: &[Vec<u8>]) {
    let mut image = vec![0; SIZE];
    // The times at which the chip had the content of the image.
    let mut moments = BTreeSet::from([0]);
    for step in record {
        for (offset, block) in step {
            let start = *offset as usize;
            image[start..start + BLOCK_SIZE].copy_from_slice(block);
        }
        let earliest = moments.first().copied().unwrap_or(0);
        let later = history.iter().enumerate().skip(earliest);
        moments = later
            .filter(|(_, content)| **content == image)
            .map(|(moment, _)| moment)
            .collect();
        assert!(
            !moments.is_empty(),
            "the chip never had this content, or not after the previous one"
        );
    }
    assert!(
        moments.contains(&(history.len() - 1)),
        "the last change is missing"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..60 {
            flash(&pseudo_random_script(seed, 400));
        }
    }

    #[test]
    fn every_crash_leaves_a_content_that_the_chip_had() {
        for seed in 0..100 {
            crash(&pseudo_random_script(seed, 1_200));
        }
    }
}
