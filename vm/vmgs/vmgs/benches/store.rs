//! Speed of a store, compared with the file system that it is on, which is that of `TMPDIR`. To compare
//! commits, that must be on a disk, not in memory.
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
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs::Vmgs;

const IMAGE_LEN: usize = 6 << 20;

fn new_store(path: &Path) -> Vmgs {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    vmgs::create_file(&file, 32 << 20, Container::Vhd1, None).unwrap();
    let device = FileDevice::new(file, Container::Vhd1, StoreAccess::ReadWrite).unwrap();
    Vmgs::format(Box::new(device), OpenOptions::default()).unwrap()
}

/// Storing an image, compared with writing and syncing the same bytes to a file.
fn image(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let content = vec![0x5a; IMAGE_LEN];
    let mut group = c.benchmark_group("image of 6 MiB");
    group.throughput(Throughput::Bytes(IMAGE_LEN as u64));
    group.sample_size(20);

    let file = File::create(dir.path().join("file")).unwrap();
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

/// The times of one contender, in the order of the rounds.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn take(&mut self, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        self.0.push(start.elapsed());
    }

    /// The time that this fraction of the rounds does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let mut times: Vec<_> = self.0.iter().map(Duration::as_secs_f64).collect();
        times.sort_by(f64::total_cmp);
        times[(part * (times.len() - 1) as f64) as usize]
    }
}

/// Runs both contenders in each round, in alternating order, so that load on the machine affects both
/// equally and neither profits from the other.
fn in_turns(what: &str, mut direct: impl FnMut(&mut Times), mut stored: impl FnMut(&mut Times)) {
    const WARM_UP: usize = 6;
    const ROUNDS: usize = 200;
    let (mut file, mut store) = (Times::default(), Times::default());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            // Up to here, the file system allocated blocks to files that are written for the first time.
            (file, store) = (Times::default(), Times::default());
        }
        if round % 2 == 0 {
            direct(&mut file);
            stored(&mut store);
        } else {
            stored(&mut store);
            direct(&mut file);
        }
    }
    let show = |times: &Times| {
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| times.quantile(part) * 1e3);
        format!("{median:.2} ms ({low:.2}-{high:.2})")
    };
    println!(
        "{what}, {ROUNDS} rounds: file {}, store {}: {:.2} times the speed of the file",
        show(&file),
        show(&store),
        file.quantile(0.5) / store.quantile(0.5)
    );
}

/// Storing an image, compared with writing the same bytes to a file, once where both were written before and
/// once where the file system has to allocate blocks for both.
fn image_in_turns(_: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; IMAGE_LEN];
    getrandom::fill(&mut content).unwrap();
    let write = |file: &File| {
        file.write_all_at(&content, 0).unwrap();
        file.sync_data().unwrap();
    };
    let commit = |store: &mut Vmgs, protection| {
        store.write(FileId(19), protection, &content).unwrap();
    };

    let file = File::create(dir.path().join("file")).unwrap();
    let mut store = new_store(&dir.path().join("plain.vmgs"));
    in_turns(
        "6 MiB over old",
        |times| times.take(|| write(&file)),
        |times| times.take(|| commit(&mut store, Protection::Plain)),
    );
    store.encrypt(&Key::new([1; 32])).unwrap();
    in_turns(
        "6 MiB over old, encrypted",
        |times| times.take(|| write(&file)),
        |times| times.take(|| commit(&mut store, Protection::Encrypted)),
    );
    let path = dir.path().join("new");
    in_turns(
        "6 MiB to new space",
        |times| {
            let _ = std::fs::remove_file(&path);
            let file = File::create(&path).unwrap();
            file.sync_data().unwrap();
            times.take(|| write(&file));
        },
        |times| {
            let _ = std::fs::remove_file(&path);
            let mut store = new_store(&path);
            times.take(|| commit(&mut store, Protection::Plain));
        },
    );
}

/// Writing a token of eight bytes.
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

/// Encryption only: a commit to memory.
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

/// Opening a full store in memory: the cost without reading the disk.
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
