//! How fast a store is, beside the file system it is on. The file system is that of `TMPDIR`; put it on
//! a disk, not in memory, for the comparison of commits to mean anything.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use criterion::BatchSize;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use vmgs::Access;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;

const IMAGE_LEN: usize = 6 << 20;

fn new_store(path: &Path) -> Vmgs {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    vmgs::create_file(&file, 32 << 20, Container::Vhd1, None).unwrap();
    let device = FileDevice::new(file, Container::Vhd1, Access::ReadWrite).unwrap();
    Vmgs::format(Box::new(device), OpenOptions::default()).unwrap()
}

/// Storing an image, against writing the same bytes to a file and making them durable.
fn image(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let content = vec![0x5a; IMAGE_LEN];
    let mut group = c.benchmark_group("image of 6 MiB");
    group.throughput(Throughput::Bytes(IMAGE_LEN as u64));
    group.sample_size(20);

    let file = std::fs::File::create(dir.path().join("file")).unwrap();
    group.bench_function("file: write and fdatasync", |b| {
        b.iter(|| {
            file.write_all_at(&content, 0).unwrap();
            file.sync_data().unwrap();
        });
    });
    let mut store = new_store(&dir.path().join("plain.vmgs"));
    group.bench_function("store: commit", |b| {
        b.iter(|| {
            store
                .write(FileId(19), Protection::Plain, &content)
                .unwrap();
        });
    });
    let mut store = new_store(&dir.path().join("encrypted.vmgs"));
    store.encrypt(&Key::new([1; 32])).unwrap();
    group.bench_function("store: encrypted commit", |b| {
        b.iter(|| {
            store
                .write(FileId(19), Protection::Encrypted, &content)
                .unwrap();
        });
    });
    group.bench_function("store: encrypted read", |b| {
        b.iter(|| store.read(FileId(19)).unwrap());
    });
    group.finish();
}

/// The same comparison with both taking turns, so that a busy moment of the machine does not fall on
/// one of them alone. Criterion measures one after the other.
fn image_in_turns(_: &mut Criterion) {
    const ROUNDS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let content = vec![0x5a; IMAGE_LEN];
    let file = std::fs::File::create(dir.path().join("file")).unwrap();
    let mut store = new_store(&dir.path().join("plain.vmgs"));
    let (mut direct, mut stored) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        file.write_all_at(&content, 0).unwrap();
        file.sync_data().unwrap();
        direct.push(start.elapsed());
        let start = Instant::now();
        store
            .write(FileId(19), Protection::Plain, &content)
            .unwrap();
        stored.push(start.elapsed());
    }
    direct.sort();
    stored.sort();
    let median = |times: &[std::time::Duration]| times[ROUNDS / 2];
    println!(
        "in turns: file {:?}, store {:?}: the store runs at {:.2} times the speed of the file",
        median(&direct),
        median(&stored),
        median(&direct).as_secs_f64() / median(&stored).as_secs_f64()
    );
}

/// A token of eight bytes.
fn token(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = new_store(&dir.path().join("store.vmgs"));
    let mut group = c.benchmark_group("token");
    group.sample_size(20);
    group.bench_function("commit", |b| {
        b.iter(|| store.write(FileId(14), Protection::Plain, &[1; 8]).unwrap());
    });
    group.finish();
}

/// Encryption alone: a commit to memory.
fn cipher(c: &mut Criterion) {
    let device = MemoryDevice::new(512, 32 << 20);
    let mut store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
    store.encrypt(&Key::new([1; 32])).unwrap();
    let content = vec![0x5a; IMAGE_LEN];
    let mut group = c.benchmark_group("AES-256-GCM of 6 MiB, in memory");
    group.throughput(Throughput::Bytes(IMAGE_LEN as u64));
    group.bench_function("write", |b| {
        b.iter(|| {
            store
                .write(FileId(19), Protection::Encrypted, &content)
                .unwrap();
        });
    });
    let mut buffer = vec![0; IMAGE_LEN];
    group.bench_function("read", |b| {
        b.iter(|| store.read_range(FileId(19), 0, &mut buffer).unwrap());
    });
    group.finish();
}

/// Opening a full store in memory: what opening costs beside reading the disk.
fn open(c: &mut Criterion) {
    let device = MemoryDevice::new(512, 32 << 20);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.encrypt(&Key::new([1; 32])).unwrap();
    for id in 1..63 {
        store
            .write(FileId(id), Protection::Encrypted, &[1; 100_000])
            .unwrap();
    }
    let open = || Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap();
    c.bench_function("open", |b| b.iter(open));
    c.bench_function("unlock", |b| {
        b.iter_batched(
            open,
            |mut store| store.unlock(&Key::new([1; 32])).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, image, image_in_turns, token, cipher, open);
criterion_main!(benches);
