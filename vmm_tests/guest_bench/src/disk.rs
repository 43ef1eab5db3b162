//! Reads around the guest's caches.

use anyhow::Context;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// What a disk may ask of the place of a buffer at the most.
const ALIGNMENT: usize = 4096;

/// 4 KiB reads a second at random places, `depth` at a time: each by a thread of its own.
pub(crate) fn random_reads(path: &Path, depth: u32, duration: Duration) -> anyhow::Result<f64> {
    const SIZE: usize = 4096;
    let (disk, len) = open(path)?;
    let blocks = len / SIZE as u64;
    anyhow::ensure!(blocks > 0, "{} is empty", path.display());
    let started = Instant::now();
    let reader = |number: u32| -> std::io::Result<u64> {
        let mut buffer = Buffer::new(SIZE);
        let mut random = Random(u64::from(number) + 1);
        let mut count = 0;
        while started.elapsed() < duration {
            let block = random.next() % blocks;
            disk.read_exact_at(buffer.bytes(), block * SIZE as u64)?;
            count += 1;
        }
        Ok(count)
    };
    let count = thread::scope(|scope| {
        let readers: Vec<_> = (0..depth)
            .map(|number| scope.spawn(move || reader(number)))
            .collect();
        readers
            .into_iter()
            .map(|reader| {
                reader
                    .join()
                    .map_err(|_| std::io::Error::other("a reader panicked"))?
            })
            .sum::<std::io::Result<u64>>()
    })
    .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// 1 MiB reads a second, in order.
pub(crate) fn sequential_reads(path: &Path, duration: Duration) -> anyhow::Result<f64> {
    const SIZE: usize = 1 << 20;
    let (disk, len) = open(path)?;
    let pieces = len / SIZE as u64;
    anyhow::ensure!(pieces > 0, "{} is smaller than 1 MiB", path.display());
    let mut buffer = Buffer::new(SIZE);
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < duration {
        disk.read_exact_at(buffer.bytes(), count % pieces * SIZE as u64)
            .with_context(|| format!("cannot read {}", path.display()))?;
        count += 1;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// The disk, and its size in bytes.
fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let opened = || -> std::io::Result<(File, u64)> {
        let mut disk = File::options()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(path)?;
        let len = disk.seek(SeekFrom::End(0))?;
        Ok((disk, len))
    };
    opened().with_context(|| format!("cannot open {}", path.display()))
}

/// Memory that direct I/O accepts.
struct Buffer {
    memory: Vec<u8>,
    offset: usize,
    size: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        let memory = vec![0; size + ALIGNMENT];
        let offset = memory.as_ptr().addr().next_multiple_of(ALIGNMENT) - memory.as_ptr().addr();
        Self {
            memory,
            offset,
            size,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.offset..][..self.size]
    }
}

/// Xorshift64: places that no cache and no read-ahead foresees.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for size in [4096, 1 << 20] {
            let mut buffer = Buffer::new(size);
            assert_eq!(buffer.bytes().len(), size);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }

    #[test]
    fn places_differ() {
        let mut random = Random(1);
        let mut places: Vec<_> = (0..1000).map(|_| random.next() % 65536).collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() > 900);
    }
}
