//! Boots of constructed kernels into small guest memory.

pub(crate) use crate::fuzzing::ADDRESS_BITS;
pub(crate) use crate::fuzzing::file;

use crate::BootSegment;
use crate::DescriptorTable;
use crate::GuestImage;
use crate::VpRegister;
use crate::VpRegisters;
use crate::linux::EntryProtocol;
use crate::linux::KernelError;
use crate::linux::LinuxHost;
use crate::linux::LinuxImage;
use crate::linux::LinuxPlan;
use crate::linux::LoadError;
use crate::linux::constructed;
use crate::linux::layout;
use acpi_spec::AcpiPlatform;
use acpi_spec::InterruptControllers;
use acpi_spec::S4Support;
use acpi_spec::TableSet;
use guest_memory::MemoryLayout;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

pub(crate) type Memory = vm_memory::GuestMemoryMmap;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn tables() -> TableSet {
    TableSet::new(&AcpiPlatform {
        interrupt_controllers: InterruptControllers::IoApicAndPic,
        s4: S4Support::Offered,
        ..constructed::machine()
    })
    .unwrap()
}

pub(crate) fn memory_layout(size: u64) -> MemoryLayout {
    MemoryLayout::new(size, MemoryLayout::DEFAULT_LOW_MMIO_START, ADDRESS_BITS).unwrap()
}

pub(crate) fn host(ram: u64) -> LinuxHost {
    LinuxHost::new(&memory_layout(ram), ADDRESS_BITS, &tables()).unwrap()
}

/// A boot with values to vary.
pub(crate) struct Boot {
    pub(crate) kernel: Vec<u8>,
    pub(crate) initrd: Option<Vec<u8>>,
    pub(crate) cmdline: String,
    pub(crate) protocol: EntryProtocol,
    pub(crate) ram: u64,
}

/// The registers that the boot processor starts with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rip: u64,
    pub(crate) rbx: u64,
    pub(crate) rsi: u64,
    pub(crate) rflags: u64,
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    pub(crate) gdt: DescriptorTable,
    pub(crate) code: BootSegment,
    pub(crate) data: BootSegment,
    pub(crate) task: BootSegment,
}

impl State {
    fn new(registers: &VpRegisters) -> Self {
        assert!(registers.keys().eq(&[0]), "only the boot processor");
        macro_rules! value {
            ($name:ident) => {
                registers[&0]
                    .iter()
                    .find_map(|register| match register {
                        VpRegister::$name(value) => Some(*value),
                        _ => None,
                    })
                    .unwrap()
            };
        }
        let data = value!(Ds);
        assert_eq!([value!(Es), value!(Fs), value!(Gs), value!(Ss)], [data; 4]);
        assert_eq!(value!(Idtr), DescriptorTable::default());
        assert_eq!(value!(Rdx), 0);
        assert_eq!(value!(Rsp), layout::STACK_TOP);
        assert!(registers[&0].contains(&VpRegister::Msr(0x2ff, 0xc06)));
        Self {
            rip: value!(Rip),
            rbx: value!(Rbx),
            rsi: value!(Rsi),
            rflags: value!(Rflags),
            cr0: value!(Cr0),
            cr3: value!(Cr3),
            cr4: value!(Cr4),
            efer: value!(Efer),
            gdt: value!(Gdtr),
            code: value!(Cs),
            data,
            task: value!(Tr),
        }
    }

    /// Whether paging is on and 64-bit mode active.
    pub(crate) fn is_long_mode(&self) -> bool {
        self.cr0 & 1 << 31 != 0 && self.efer & 1 << 10 != 0
    }
}

impl Boot {
    pub(crate) fn of(kernel: Vec<u8>) -> Self {
        Self {
            kernel,
            initrd: None,
            cmdline: "console=ttyS0".into(),
            protocol: EntryProtocol::Auto,
            ram: 48 * MIB,
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::from_ranges(&[(GuestAddress(0), self.ram as usize)]).unwrap()
    }

    pub(crate) fn plan(&self) -> Result<LinuxPlan, LoadError> {
        let image = LinuxImage {
            kernel: file("vmlinuz", &self.kernel),
            initrd: self.initrd.as_ref().map(|bytes| file("initrd.img", bytes)),
            cmdline: &self.cmdline,
            host: Some(host(self.ram)),
            protocol: self.protocol,
        };
        LinuxPlan::new(&memory_layout(self.ram), image)
    }

    pub(crate) fn load_into(&self, memory: &Memory) -> State {
        let mut image = GuestImage::new(memory);
        self.plan().unwrap().load(&mut image).unwrap();
        State::new(&image.into_registers())
    }

    pub(crate) fn load(&self) -> (Memory, State) {
        let memory = self.memory();
        let state = self.load_into(&memory);
        (memory, state)
    }

    /// Why the kernel is refused.
    pub(crate) fn kernel_error(&self) -> KernelError {
        match self.error() {
            LoadError::Kernel { path, problem } => {
                assert_eq!(path.to_str(), Some("vmlinuz"));
                problem
            }
            other => panic!("{other}"),
        }
    }

    pub(crate) fn error(&self) -> LoadError {
        self.plan().unwrap_err()
    }
}

pub(crate) fn bytes(memory: &Memory, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    bytes
}

pub(crate) fn word<const N: usize>(memory: &Memory, gpa: u64) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes(memory, gpa, N));
    u64::from_le_bytes(word)
}

pub(crate) fn header(offset: u64) -> u64 {
    layout::BOOT_PARAMS + offset
}
