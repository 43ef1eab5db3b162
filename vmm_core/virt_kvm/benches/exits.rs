//! What an exit to the VMM and back costs: a guest that writes to a port for ever. Needs `/dev/kvm`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use virt::Hypervisor as _;
use virt::IoBus;
use virt::IrqchipMode;
use virt::PartitionConfig;
use virt::Topology;
use virt::TopologyConfig;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt_kvm::KvmHypervisor;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

const CODE: u64 = 0x1000;
/// Exits in a run.
const EXITS: u32 = 1000;

/// Stops the VP every [`EXITS`] writes.
struct Counter {
    writes: AtomicU32,
    kick: Arc<dyn VpKick>,
}

impl IoBus for Counter {
    fn read_port(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn write_port(&self, _port: u16, _data: &[u8]) {
        if self.writes.fetch_add(1, Ordering::Relaxed) % EXITS == EXITS - 1 {
            self.kick.kick();
        }
    }
    fn read_mmio(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn write_mmio(&self, _gpa: u64, _data: &[u8]) {}
    fn end_of_interrupt(&self, _vector: u8) {}
    fn read_msr(&self, _vp: VpIndex, _index: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _vp: VpIndex, _index: u32, _value: u64) -> Option<()> {
        None
    }
}

fn port_write(c: &mut Criterion) {
    let hypervisor = KvmHypervisor::open().unwrap();
    let layout = MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
    let memory = GuestMemory::anonymous(layout).unwrap();
    // out 0xf4, al; jmp back
    memory
        .map()
        .write_slice(&[0xe6, 0xf4, 0xeb, 0xfc], GuestAddress(CODE))
        .unwrap();
    let topology = Topology::new(TopologyConfig {
        processors: 1,
        vps_per_socket: None,
        threads_per_core: 1,
    })
    .unwrap();
    let mut new = hypervisor
        .new_partition(PartitionConfig {
            topology: &topology,
            memory: &memory,
            irqchip: IrqchipMode::Kernel,
            msr_intercepts: Vec::new(),
        })
        .unwrap();
    let mut vp = new.vps.remove(0).bind().unwrap();
    let mut r = vp.registers().unwrap();
    (r.cs.base, r.cs.selector, r.rip) = (0, 0, CODE);
    vp.set_registers(&r).unwrap();
    let bus = Counter {
        writes: AtomicU32::new(0),
        kick: vp.kicker(),
    };

    let mut group = c.benchmark_group("exits");
    group.throughput(Throughput::Elements(EXITS.into()));
    let runs = Cell::new(0);
    group.bench_function("port_write", |b| {
        b.iter(|| {
            assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
            runs.set(runs.get() + 1);
        });
    });
    group.finish();
    assert_eq!(bus.writes.load(Ordering::Relaxed), runs.get() * EXITS);
}

criterion_group!(benches, port_write);
criterion_main!(benches);
