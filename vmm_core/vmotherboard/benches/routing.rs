//! The cost of routing an access, with 20 devices that do nothing.

use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::FixedResources;
use chipset_device::IoError;
use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use std::hint::black_box;
use vmotherboard::ChipsetBuilder;

struct Null(FixedResources);

impl ChipsetDevice for Null {
    fn fixed_resources(&self) -> FixedResources {
        self.0.clone()
    }

    fn read_port(&mut self, _port: u16, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(0);
        Ok(())
    }

    fn write_port(&mut self, _port: u16, _data: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn read_mmio(&mut self, _gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(0);
        Ok(())
    }

    fn write_mmio(&mut self, _gpa: u64, _data: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

fn routing(criterion: &mut Criterion) {
    let mut builder = ChipsetBuilder::default();
    for i in 0..20_u16 {
        let gpa = 0xfe00_0000 + u64::from(i) * 0x2000;
        let resources = FixedResources {
            ports: vec![i * 0x20..=i * 0x20 + 7],
            mmio: vec![gpa..=gpa + 0xfff],
            pci: None,
        };
        builder.add(format!("device{i}"), |_| Null(resources));
    }
    let mut decoder = AddressDecoder::detached();
    builder.add("movable", |context| {
        decoder = context.decoder.clone();
        Null(FixedResources::default())
    });
    let Ok(chipset) = builder.build() else {
        return;
    };
    criterion.bench_function("port write", |b| {
        b.iter(|| chipset.write_port(black_box(0xe0), &[0]));
    });
    criterion.bench_function("port read", |b| {
        let mut data = [0];
        b.iter(|| chipset.read_port(black_box(0x103), &mut data));
    });
    criterion.bench_function("memory read", |b| {
        let mut data = [0; 4];
        b.iter(|| chipset.read_mmio(black_box(0xfe00_8010), &mut data));
    });
    criterion.bench_function("unclaimed port read", |b| {
        let mut data = [0];
        b.iter(|| chipset.read_port(black_box(0x108), &mut data));
    });
    criterion.bench_function("unclaimed memory read", |b| {
        let mut data = [0; 4];
        b.iter(|| chipset.read_mmio(black_box(0xd000_0000), &mut data));
    });
    moving(criterion, &decoder);
}

/// A guest that moves a BAR back and forth.
fn moving(criterion: &mut Criterion, decoder: &AddressDecoder) {
    criterion.bench_function("BAR moved", |b| {
        let places = [0xc000_0000_u64, 0xfe00_1000];
        let mut places = places.iter().cycle();
        b.iter(|| {
            let base = places.next().copied().unwrap_or_default();
            decoder.set(DecodedRanges {
                ports: Vec::new(),
                mmio: vec![base..=base + 0xffff],
            });
        });
    });
}

criterion_group!(benches, routing);
criterion_main!(benches);
