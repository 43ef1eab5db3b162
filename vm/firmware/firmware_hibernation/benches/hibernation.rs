//! What hibernation adds to a start and to a power-off, beside the raw I/O. The file system is that of
//! `TMPDIR`; put it on a disk, not in memory, for the comparison of captures to mean anything.
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
use firmware_hibernation::*;
use platform_digest::PlatformView;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_broker::Broker;
use vmgs_broker::VmgsClient;

const MIB: usize = 1 << 20;

/// A store in a file, behind its broker.
fn new_store(path: &Path) -> VmgsClient {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    vmgs::create_file(&file, 32 << 20, Container::Vhd1, None).unwrap();
    let device = FileDevice::new(file, Container::Vhd1, StoreAccess::ReadWrite).unwrap();
    let store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
    Broker::spawn(store).unwrap().0
}

fn vm(client: &VmgsClient) -> HibernationEngine {
    HibernationEngine::new(
        Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap(),
        Architecture::X86_64,
        Some(Box::new(BrokerStorage::new(client.clone()))),
        Box::new(|_| {}),
    )
}

fn image(len: usize, salt: u8) -> FirmwareImage {
    let bytes: Vec<u8> = (0..len).map(|i| (i / 3) as u8 ^ salt).collect();
    FirmwareImage::new().part("code", 0x1_0000_0000 - len as u64, bytes)
}

fn pinned() -> PinnedFiles {
    PinnedFiles::from([
        ("etc/acpi/tables".into(), vec![1; 128 << 10]),
        ("etc/smbios/smbios-tables".into(), vec![2; 1 << 10]),
    ])
}

fn cold_start(vm: &mut HibernationEngine, image: &FirmwareImage) {
    let view = PlatformView::default();
    assert!(matches!(vm.start(&view).unwrap(), StartPlan::Capture));
    let description = FirmwareDescription::reset_vector();
    assert_eq!(
        vm.capture(&description, image.clone(), &pinned(), &view),
        ImageStatus::Stored
    );
    vm.run();
}

struct Flash(Vec<u8>);

impl FirmwareTarget for Flash {
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError> {
        self.0.resize(parts[0].len as usize, 0);
        Ok(())
    }
    fn write(&mut self, _: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.0[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// Storing an image that is new, against writing as many bytes to a file and making them durable. Both
/// take turns, so that a busy moment of the machine does not fall on one of them alone.
fn capture_in_turns(_: &mut Criterion) {
    const ROUNDS: usize = 40;
    for mib in [4, 6] {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("file")).unwrap();
        let content = vec![0x5a; mib * MIB];
        let client = new_store(&dir.path().join("store.vmgs"));
        let images = [image(mib * MIB, 1), image(mib * MIB, 2)];
        let (mut raw, mut stored) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let start = Instant::now();
            file.write_all_at(&content, 0).unwrap();
            file.sync_data().unwrap();
            raw.push(start.elapsed());
            let mut vm = vm(&client);
            let start = Instant::now();
            cold_start(&mut vm, &images[round % 2]);
            stored.push(start.elapsed());
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[ROUNDS / 2]
        };
        let (raw, stored) = (median(&mut raw), median(&mut stored));
        println!(
            "capture and store {mib} MiB: {stored:?}; writing it to a file: {raw:?}; added: {:?}",
            stored.saturating_sub(raw)
        );
    }
}

/// A start when the image is in the store already.
fn unchanged(c: &mut Criterion) {
    let mut group = c.benchmark_group("start, nothing changed");
    for mib in [4, 6] {
        let dir = tempfile::tempdir().unwrap();
        let client = new_store(&dir.path().join("store.vmgs"));
        let image = image(mib * MIB, 1);
        cold_start(&mut vm(&client), &image);
        group.throughput(Throughput::Bytes((mib * MIB) as u64));
        group.bench_function(format!("{mib} MiB"), |b| {
            b.iter(|| cold_start(&mut vm(&client), &image));
        });
    }
    group.finish();
}

/// Finding the token, validating the image, and putting it into the machine.
fn restore(c: &mut Criterion) {
    let mut group = c.benchmark_group("restore");
    for mib in [4, 6] {
        let dir = tempfile::tempdir().unwrap();
        let client = new_store(&dir.path().join("store.vmgs"));
        let mut first = vm(&client);
        cold_start(&mut first, &image(mib * MIB, 1));
        first.hibernate().unwrap();
        let mut flash = Flash(vec![0; mib * MIB]);
        group.throughput(Throughput::Bytes((mib * MIB) as u64));
        group.bench_function(format!("{mib} MiB"), |b| {
            b.iter(|| {
                let mut vm = vm(&client);
                let plan = vm.start(&PlatformView::default()).unwrap();
                assert!(matches!(plan, StartPlan::Restore(_)));
                vm.restore_firmware(&mut flash).unwrap()
            });
        });
    }
    group.finish();
}

/// The token of a hibernation, with validating what it promises.
fn token(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let client = new_store(&dir.path().join("store.vmgs"));
    let image = image(6 * MIB, 1);
    let mut group = c.benchmark_group("token");
    group.sample_size(20);
    group.bench_function("hibernate", |b| {
        b.iter_batched(
            || {
                let mut vm = vm(&client);
                if matches!(
                    vm.start(&PlatformView::default()).unwrap(),
                    StartPlan::Restore(_)
                ) {
                    vm.restore_firmware(&mut Flash(Vec::new())).unwrap();
                    vm.wake();
                } else {
                    vm.reset();
                    cold_start(&mut vm, &image);
                }
                vm
            },
            |mut vm| vm.hibernate().unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, capture_in_turns, unchanged, restore, token);
criterion_main!(benches);
