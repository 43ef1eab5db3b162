//! Boots of constructed kernels into small guest memory.

use super::BootProtocol;
use super::LinuxImage;
use super::LoadError;
use super::constructed;
use super::layout;
use super::load_linux;
use crate::BootState;
use crate::ImageFile;
use acpi_spec::AcpiPlatform;
use acpi_spec::InterruptControllers;
use acpi_spec::S4Support;
use acpi_spec::TableSet;
use guest_memory::MemoryLayout;
use std::io::Cursor;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

pub(super) type Memory = vm_memory::GuestMemoryMmap;
pub(super) type BytesFile = ImageFile<Cursor<Vec<u8>>>;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn tables() -> TableSet {
    TableSet::new(&AcpiPlatform {
        interrupt_controllers: InterruptControllers::IoApicAndPic,
        s4: S4Support::Offered,
        ..constructed::machine()
    })
    .unwrap()
}

pub(super) fn file(name: &str, bytes: &[u8]) -> BytesFile {
    ImageFile::new(name.into(), Cursor::new(bytes.to_vec())).unwrap()
}

pub(super) fn layout(size: u64) -> MemoryLayout {
    MemoryLayout::new(size, MemoryLayout::DEFAULT_LOW_MMIO_START, 40).unwrap()
}

/// A boot to be tried: change what is to be different.
pub(super) struct Boot {
    pub(super) kernel: Vec<u8>,
    pub(super) initrd: Option<Vec<u8>>,
    pub(super) cmdline: String,
    pub(super) protocol: BootProtocol,
    pub(super) ram: u64,
}

impl Boot {
    pub(super) fn of(kernel: Vec<u8>) -> Self {
        Self {
            kernel,
            initrd: None,
            cmdline: "console=ttyS0".into(),
            protocol: BootProtocol::Auto,
            ram: 48 * MIB,
        }
    }

    pub(super) fn memory(&self) -> Memory {
        Memory::from_ranges(&[(GuestAddress(0), self.ram as usize)]).unwrap()
    }

    pub(super) fn load_into(&self, memory: &Memory) -> Result<BootState, LoadError> {
        let tables = tables();
        let image = LinuxImage {
            kernel: file("vmlinuz", &self.kernel),
            initrd: self.initrd.as_ref().map(|bytes| file("initrd.img", bytes)),
            cmdline: &self.cmdline,
            acpi: &tables,
            protocol: self.protocol,
        };
        load_linux(memory, &layout(self.ram), image)
    }

    pub(super) fn load(&self) -> (Memory, BootState) {
        let memory = self.memory();
        let state = self.load_into(&memory).unwrap();
        (memory, state)
    }

    pub(super) fn error(&self) -> LoadError {
        self.load_into(&self.memory()).unwrap_err()
    }
}

pub(super) fn bytes(memory: &Memory, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    bytes
}

pub(super) fn word<const N: usize>(memory: &Memory, gpa: u64) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes(memory, gpa, N));
    u64::from_le_bytes(word)
}

pub(super) fn header(offset: u64) -> u64 {
    layout::BOOT_PARAMS + offset
}
