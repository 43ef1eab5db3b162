//! Measures the rate of direct reads from a disk.

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

/// The largest alignment that a disk can require of a buffer.
const ALIGNMENT: usize = 4096;

/// The rate of random reads of 4 KiB, per second, with `depth` threads.
pub(crate) fn random_reads(path: &Path, depth: u32, duration: Duration) -> anyhow::Result<f64> {
    const SIZE: usize = 4096;
    let (disk, len) = open(path)?;
    let blocks = len / SIZE as u64;
    anyhow::ensure!(blocks > 0, "{} is empty", path.display());
    let started = Instant::now();
    let reader = |number: u32| -> std::io::Result<u64> {
        let mut buffer = AlignedBuffer::new(SIZE);
        let mut random = fastrand::Rng::with_seed(number.into());
        let mut count = 0;
        while started.elapsed() < duration {
            let block = random.u64(..blocks);
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

/// The rate of sequential reads of 1 MiB, per second.
pub(crate) fn sequential_reads(path: &Path, duration: Duration) -> anyhow::Result<f64> {
    const SIZE: usize = 1 << 20;
    let (disk, len) = open(path)?;
    let pieces = len / SIZE as u64;
    anyhow::ensure!(pieces > 0, "{} is smaller than 1 MiB", path.display());
    let mut buffer = AlignedBuffer::new(SIZE);
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < duration {
        disk.read_exact_at(buffer.bytes(), count % pieces * SIZE as u64)
            .with_context(|| format!("cannot read {}", path.display()))?;
        count += 1;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Opens the disk. Returns its size in bytes too.
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

/// A buffer with the alignment for direct I/O.
struct AlignedBuffer {
    memory: Vec<u8>,
    offset: usize,
    size: usize,
}

impl AlignedBuffer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for size in [4096, 1 << 20] {
            let mut buffer = AlignedBuffer::new(size);
            assert_eq!(buffer.bytes().len(), size);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }
}
