//! What an exit to the VMM and back costs: a guest that writes to a port for ever. Needs `/dev/kvm`.
//!
//! What `port_write` takes longer than `ioctl_alone` is user space's share.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use guest_memory::GuestMemory;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use virt::Hypervisor as _;
use virt::IoBus;
use virt::IrqchipMode;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::TopologyConfig;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt_kvm::KvmHypervisor;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;

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

/// Memory with the guest in it.
fn memory() -> GuestMemory {
    let layout = MemoryLayout::new(MIN_RAM, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
    let memory = GuestMemory::anonymous(layout).unwrap();
    // out 0xf4, al; jmp back
    memory
        .map()
        .write_slice(&[0xe6, 0xf4, 0xeb, 0xfc], GuestAddress(CODE))
        .unwrap();
    memory
}

#[allow(unsafe_code, reason = "the kernel takes a guest's memory by address")]
fn ioctl_alone(c: &mut Criterion) {
    let memory = memory();
    let vm = Kvm::new().unwrap().create_vm().unwrap();
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MIN_RAM,
        userspace_addr: memory.map().get_host_address(GuestAddress(0)).unwrap() as u64,
    };
    // SAFETY: `memory` is all mapped, lives longer than the VM, and is nobody else's.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let mut special = vcpu.get_sregs().unwrap();
    (special.cs.base, special.cs.selector) = (0, 0);
    vcpu.set_sregs(&special).unwrap();
    let mut general = vcpu.get_regs().unwrap();
    general.rip = CODE;
    vcpu.set_regs(&general).unwrap();

    let mut group = c.benchmark_group("exits");
    group.throughput(Throughput::Elements(EXITS.into()));
    group.bench_function("ioctl_alone", |b| {
        b.iter(|| {
            for _ in 0..EXITS {
                assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0xf4, _)));
            }
        });
    });
    group.finish();
}

fn port_write(c: &mut Criterion) {
    let hypervisor = KvmHypervisor::open().unwrap();
    let memory = memory();
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
            processor: ProcessorFeatures::default(),
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

criterion_group!(benches, ioctl_alone, port_write);
criterion_main!(benches);
