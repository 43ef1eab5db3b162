//! Random reads of 4 KiB from a file in the page cache: `preadv` itself, and the disk on each engine.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use disk_backend::Buffers;
use disk_backend::Disk as _;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use disk_file::Engine;
use disk_file::FileDisk;
use disk_file::FileOptions;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

const SIZE: u64 = 64 << 20;
const BLOCK: u64 = 4096;

/// Offsets that cover the whole file in pseudo-random order.
fn offsets() -> impl Iterator<Item = u64> {
    (0u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (SIZE / BLOCK) * BLOCK)
}

fn batch(
    queue: &mut dyn DiskQueue,
    memory: &Arc<GuestMemoryMmap>,
    offsets: &mut impl Iterator<Item = u64>,
    depth: u64,
) {
    for token in 0..depth {
        let offset = offsets.next().unwrap_or(0);
        let buffers = Buffers::guest(memory, [(GuestAddress(token * BLOCK), BLOCK)]).unwrap();
        queue.submit(token, DiskOperation::Read { offset, buffers });
    }
    let mut completions = Vec::new();
    while (completions.len() as u64) < depth {
        queue.wait(&mut completions).unwrap();
    }
    assert!(completions.iter().all(|c| c.result.is_ok()));
}

fn random_read(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut file = File::create_new(&path).unwrap();
    for i in 0..SIZE / BLOCK {
        file.write_all(&[i as u8; BLOCK as usize]).unwrap();
    }
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let memory = Arc::new(memory);

    let mut group = c.benchmark_group("random_read_4k");
    group.throughput(Throughput::Elements(1));
    group.bench_function("preadv", |b| {
        let file = File::open(&path).unwrap();
        let mut offsets = offsets();
        let mut block = [0; BLOCK as usize];
        b.iter(|| file.read_exact_at(&mut block, offsets.next().unwrap_or(0)));
    });
    for engine in [Engine::IoUring, Engine::Threads] {
        let options = FileOptions {
            engine,
            ..Default::default()
        };
        let Ok(disk) = FileDisk::open(&path, options) else {
            continue;
        };
        let mut queue = Arc::new(disk).open_queue(32, &[]).unwrap();
        for depth in [1, 32] {
            group.throughput(Throughput::Elements(depth));
            group.bench_function(format!("{engine:?}/{depth}"), |b| {
                let mut offsets = offsets();
                b.iter(|| batch(queue.as_mut(), &memory, &mut offsets, depth));
            });
        }
        drop(queue);
        // The next engine can open the file once the threads of this one have ended.
        while FileDisk::open(&path, options).is_err() {
            std::thread::yield_now();
        }
    }
}

criterion_group!(benches, random_read);
criterion_main!(benches);
