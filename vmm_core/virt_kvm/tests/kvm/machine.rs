//! A partition with a few bytes of real-mode code, and a bus that notes what the guest does.

use crate::code::Code;
use guest_memory::GuestMemory;
use guest_memory::GuestRegion;
use guest_memory::MemoryLayout;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use virt::Hypervisor as _;
use virt::IoBus;
use virt::IrqchipMode;
use virt::Partition;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::TopologyConfig;
use virt::Vp;
use virt::VpBinder;
use virt::VpIndex;
use virt::VpKick;
use virt::VpStop;
use virt_kvm::KvmHypervisor;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

/// Where code is loaded and starts.
pub(crate) const CODE: u64 = 0x1000;
/// The port whose access ends a test.
pub(crate) const DONE: u16 = 0xf4;
/// The MMIO address whose read ends a test.
pub(crate) const DONE_GPA: u64 = 0xd000_0f00;

pub(crate) struct Machine {
    pub(crate) memory: GuestMemory,
    pub(crate) partition: Arc<dyn Partition>,
    pub(crate) binders: Vec<Box<dyn VpBinder>>,
}

pub(crate) struct Options {
    pub(crate) processors: u32,
    pub(crate) irqchip: IrqchipMode,
    pub(crate) processor: ProcessorFeatures,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            processors: 1,
            irqchip: IrqchipMode::Kernel,
            processor: ProcessorFeatures::default(),
        }
    }
}

pub(crate) fn hypervisor() -> &'static KvmHypervisor {
    static KVM: OnceLock<KvmHypervisor> = OnceLock::new();
    KVM.get_or_init(|| KvmHypervisor::open().expect("these tests need /dev/kvm"))
}

impl Machine {
    pub(crate) fn new(code: &Code, options: Options) -> Self {
        let layout = MemoryLayout::new(32 << 20, MemoryLayout::DEFAULT_LOW_MMIO_START, 36).unwrap();
        let memory = GuestMemory::anonymous(layout).unwrap();
        let topology = Topology::new(TopologyConfig {
            processors: options.processors,
            vps_per_socket: None,
            threads_per_core: 1,
        })
        .unwrap();
        let new = hypervisor()
            .new_partition(PartitionConfig {
                topology: &topology,
                memory: &memory,
                irqchip: options.irqchip,
                processor: options.processor,
            })
            .unwrap();
        let machine = Self {
            memory,
            partition: new.partition,
            binders: new.vps,
        };
        machine.write(CODE, code.bytes());
        machine
    }

    /// Makes interrupt `vector` go to `handler`, which lies at `address`.
    pub(crate) fn handle(&self, vector: u8, address: u16, handler: &Code) {
        self.write(address.into(), handler.bytes());
        self.write(u64::from(vector) * 4, &u32::from(address).to_le_bytes());
    }

    /// Binds the first VP here, in real mode at the code, with ES at `es_base`.
    pub(crate) fn bsp_with_es(&mut self, es_base: u64) -> Box<dyn Vp> {
        let mut vp = self.binders.remove(0).bind().unwrap();
        let mut r = vp.registers().unwrap();
        r.cs.base = 0;
        r.cs.selector = 0;
        r.es.base = es_base;
        r.rip = CODE;
        // The stack is below the code.
        r.rsp = CODE;
        r.rflags = 2;
        vp.set_registers(&r).unwrap();
        vp
    }

    /// The same with ES at zero.
    pub(crate) fn bsp(&mut self) -> Box<dyn Vp> {
        self.bsp_with_es(0)
    }

    pub(crate) fn read_u32(&self, gpa: u64) -> u32 {
        self.memory.map().read_obj(GuestAddress(gpa)).unwrap()
    }

    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memory
            .map()
            .write_slice(bytes, GuestAddress(gpa))
            .unwrap();
    }
}

/// Runs the VP until it stops, which it must do because it was asked to; what it did.
pub(crate) fn run(vp: &mut dyn Vp, bus: &Bus) -> Vec<Access> {
    assert_eq!(vp.run(bus).unwrap(), VpStop::Requested);
    bus.take()
}

/// Host memory with `content` at its start, to map at `gpa`.
pub(crate) fn region(gpa: u64, size: usize, content: &[u8]) -> GuestRegion {
    let region = vm_memory::MmapRegion::new(size).unwrap();
    let region = vm_memory::GuestRegionMmap::new(region, GuestAddress(gpa)).unwrap();
    region
        .write_slice(content, vm_memory::MemoryRegionAddress(0))
        .unwrap();
    Arc::new(region)
}

/// What the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    PortRead(u16, usize),
    PortWrite(u16, Vec<u8>),
    MmioRead(u64, usize),
    MmioWrite(u64, Vec<u8>),
    Eoi(u8),
    ReadMsr(u32),
    WriteMsr(u32, u64),
}

/// Notes accesses, answers reads, and stops the VP at an access to [`DONE`] or [`DONE_GPA`].
#[derive(Default)]
pub(crate) struct Bus {
    accesses: Mutex<Vec<Access>>,
    /// Answers to port and MMIO reads, the next one last.
    pub(crate) answers: Mutex<Vec<u64>>,
    pub(crate) msrs: Mutex<HashMap<u32, u64>>,
    kick: Mutex<Option<Arc<dyn VpKick>>>,
}

impl Bus {
    pub(crate) fn stopping(vp: &dyn Vp) -> Self {
        Self {
            kick: Mutex::new(Some(vp.kicker())),
            ..Default::default()
        }
    }

    pub(crate) fn take(&self) -> Vec<Access> {
        std::mem::take(&mut self.accesses.lock())
    }

    fn note(&self, access: Access) {
        self.accesses.lock().push(access);
    }

    fn stop(&self) {
        if let Some(kick) = &*self.kick.lock() {
            kick.kick();
        }
    }

    fn answer(&self, data: &mut [u8]) {
        let answer = self.answers.lock().pop().unwrap_or(u64::MAX);
        let len = data.len();
        data.copy_from_slice(&answer.to_le_bytes()[..len]);
    }
}

impl IoBus for Bus {
    fn read_port(&self, port: u16, data: &mut [u8]) {
        if port == DONE {
            self.stop();
        }
        self.note(Access::PortRead(port, data.len()));
        self.answer(data);
    }

    fn write_port(&self, port: u16, data: &[u8]) {
        if port == DONE {
            self.stop();
            return;
        }
        self.note(Access::PortWrite(port, data.to_vec()));
    }

    fn read_mmio(&self, gpa: u64, data: &mut [u8]) {
        if gpa == DONE_GPA {
            self.stop();
        }
        self.note(Access::MmioRead(gpa, data.len()));
        self.answer(data);
    }

    fn write_mmio(&self, gpa: u64, data: &[u8]) {
        self.note(Access::MmioWrite(gpa, data.to_vec()));
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.note(Access::Eoi(vector));
    }

    fn read_msr(&self, _vp: VpIndex, index: u32) -> Option<u64> {
        self.note(Access::ReadMsr(index));
        self.msrs.lock().get(&index).copied()
    }

    fn write_msr(&self, _vp: VpIndex, index: u32, value: u64) -> Option<()> {
        self.note(Access::WriteMsr(index, value));
        let mut msrs = self.msrs.lock();
        *msrs.get_mut(&index)? = value;
        Some(())
    }
}
