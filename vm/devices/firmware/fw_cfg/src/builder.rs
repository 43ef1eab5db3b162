//! Collecting the items of a device.

use crate::content::Content;
use crate::device::FwCfg;
use crate::item::Items;
use crate::item::OnSelect;
use crate::item::OnWrite;
use crate::item::StoredItem;
use crate::item::Writable;
use crate::kernel;
use crate::kernel::KernelError;
use crate::selector;
use guest_memory::GuestMemory;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The longest name of a file, in bytes; a NUL follows in the directory.
const MAX_NAME: usize = 55;

/// The largest item that a guest may write, in bytes: its content is part of the device's saved state.
const MAX_WRITABLE: usize = 1 << 20;

/// What the firmware may do with a range of guest-physical addresses: the type in `etc/e820`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Use it as RAM.
    Ram,
    /// Leave it alone.
    Reserved,
}

impl MemoryKind {
    /// The entry of `etc/e820` for `len` bytes at `start`: both, and the type.
    pub fn e820_entry(self, start: u64, len: u64) -> [u8; 20] {
        let kind: u32 = match self {
            Self::Ram => 1,
            Self::Reserved => 2,
        };
        let mut entry = [0; 20];
        entry[..8].copy_from_slice(&start.to_le_bytes());
        entry[8..16].copy_from_slice(&len.to_le_bytes());
        entry[16..].copy_from_slice(&kind.to_le_bytes());
        entry
    }
}

/// Why a device cannot have an item.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file's name does not fit into the directory.
    #[error("`{name}` is no name for a fw_cfg file: 1 to {MAX_NAME} printable ASCII characters")]
    Name {
        /// The name.
        name: String,
    },
    /// Two files have one name.
    #[error("there are two fw_cfg files called `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two items have one number.
    #[error("there are two fw_cfg items {selector:#x}")]
    DuplicateItem {
        /// The number.
        selector: u16,
    },
    /// The number is one of a file, of the directory, or not of an item.
    #[error("{selector:#x} is no number for a fw_cfg item")]
    Number {
        /// The number.
        selector: u16,
    },
    /// There are more files than numbers for them.
    #[error("{count} fw_cfg files are too many")]
    TooManyFiles {
        /// How many.
        count: usize,
    },
    /// The content's length does not fit into the 32 bits that the interface has for it.
    #[error("the fw_cfg item `{item}` has {len} bytes, and the limit is {limit}")]
    TooLarge {
        /// Its name or number.
        item: String,
        /// Its length in bytes.
        len: u64,
        /// How many it may have.
        limit: u64,
    },
    /// The kernel is not one.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The command line has a NUL in it.
    #[error("the kernel command line contains a NUL")]
    CommandLine,
    /// Something is to be called when an item that does not exist is selected.
    #[error("there is no fw_cfg file called `{name}`")]
    NoSuchFile {
        /// The name.
        name: String,
    },
}

/// Collects what a VMM has to say to its firmware.
#[derive(Default)]
#[must_use]
pub struct FwCfgBuilder {
    numbered: BTreeMap<u16, Content>,
    /// Sorted by name, as the directory is.
    files: BTreeMap<String, StoredItem>,
    e820: Vec<u8>,
}

impl FwCfgBuilder {
    /// No items but those that the device is made of: signature, features, directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the item with the number `selector`, below [`selector::FIRST_FILE`].
    pub fn add_item(
        mut self,
        selector: u16,
        content: impl Into<Content>,
    ) -> Result<Self, BuildError> {
        if selector >= selector::FIRST_FILE
            || matches!(
                selector,
                selector::SIGNATURE | selector::FEATURES | selector::DIRECTORY
            )
        {
            return Err(BuildError::Number { selector });
        }
        let content = content.into();
        check_len(|| format!("{selector:#x}"), content.len(), u32::MAX.into())?;
        match self.numbered.entry(selector) {
            Entry::Vacant(entry) => entry.insert(content),
            Entry::Occupied(_) => return Err(BuildError::DuplicateItem { selector }),
        };
        Ok(self)
    }

    /// Adds a file that the guest can read.
    pub fn add_file(self, name: &str, content: impl Into<Content>) -> Result<Self, BuildError> {
        self.insert(name, content.into(), None)
    }

    /// Adds a file that the guest can also write, such as one that a write-pointer command of the table loader
    /// puts an address into. It holds `initial` at first and after a reset, and never changes its length.
    ///
    /// `on_write` is called with all of the content whenever that has changed, be it by the guest, by a
    /// reset or by a restored state. The device is locked meanwhile.
    pub fn add_writable_file(
        self,
        name: &str,
        initial: Vec<u8>,
        on_write: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Self, BuildError> {
        check_len(|| name.into(), initial.len() as u64, MAX_WRITABLE as u64)?;
        let content = Content::from(initial.as_slice());
        self.insert(name, content, Some((initial, Box::new(on_write))))
    }

    fn insert(
        mut self,
        name: &str,
        content: Content,
        writable: Option<(Vec<u8>, OnWrite)>,
    ) -> Result<Self, BuildError> {
        let name = name.to_owned();
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_NAME || !printable {
            return Err(BuildError::Name { name });
        }
        check_len(|| name.clone(), content.len(), u32::MAX.into())?;
        if self.files.contains_key(&name) {
            return Err(BuildError::DuplicateName { name });
        }
        let item = StoredItem {
            name: Some(name.clone()),
            content,
            writable: writable.map(|(bytes, on_write)| Writable { bytes, on_write }),
            on_select: None,
        };
        self.files.insert(name, item);
        Ok(self)
    }

    /// Calls `hook` each time the guest selects the file `name`, which was added before. The device is locked
    /// meanwhile.
    pub fn on_select(
        mut self,
        name: &str,
        hook: impl FnMut() + Send + 'static,
    ) -> Result<Self, BuildError> {
        let Some(file) = self.files.get_mut(name) else {
            return Err(BuildError::NoSuchFile { name: name.into() });
        };
        file.on_select = Some(Box::new(hook) as OnSelect);
        Ok(self)
    }

    /// How many VPs run from the start.
    pub fn boot_cpu_count(self, count: u16) -> Result<Self, BuildError> {
        self.add_item(selector::BOOT_CPU_COUNT, count.to_le_bytes().to_vec())
    }

    /// Adds `len` bytes at `start` to the memory map in the file `etc/e820`.
    pub fn memory_range(mut self, start: u64, len: u64, kind: MemoryKind) -> Self {
        self.e820.extend(kind.e820_entry(start, len));
        self
    }

    /// The kernel to start, with its command line (without a NUL): a bzImage or another PE image that UEFI can
    /// run.
    pub fn kernel(self, kernel: &Content, command_line: &str) -> Result<Self, BuildError> {
        let (setup, rest) = kernel::split(kernel)?;
        if command_line.contains('\0') {
            return Err(BuildError::CommandLine);
        }
        let mut command_line = command_line.as_bytes().to_vec();
        command_line.push(0);
        self.sized(selector::SETUP_SIZE, selector::SETUP_DATA, setup)?
            .sized(selector::KERNEL_SIZE, selector::KERNEL_DATA, rest)?
            .sized(
                selector::COMMAND_LINE_SIZE,
                selector::COMMAND_LINE_DATA,
                command_line.into(),
            )
    }

    /// The kernel's initial RAM disk.
    pub fn initrd(self, content: Content) -> Result<Self, BuildError> {
        self.sized(selector::INITRD_SIZE, selector::INITRD_DATA, content)
    }

    fn sized(self, size: u16, data: u16, content: Content) -> Result<Self, BuildError> {
        let len = content.len();
        let this = self.add_item(data, content)?;
        this.add_item(size, (len as u32).to_le_bytes().to_vec())
    }

    /// Adds the files that the firmware makes its ACPI tables from: the commands of the table loader, and the
    /// blobs they name.
    pub fn acpi_tables<'a>(
        mut self,
        loader: impl Into<Content>,
        blobs: impl IntoIterator<Item = (&'a str, Vec<u8>)>,
    ) -> Result<Self, BuildError> {
        self = self.add_file("etc/table-loader", loader)?;
        for (name, blob) in blobs {
            self = self.add_file(name, blob)?;
        }
        Ok(self)
    }

    /// The device. It finds its DMA descriptors and buffers in `memory`.
    pub fn build(mut self, memory: GuestMemory) -> Result<FwCfg, BuildError> {
        if !self.e820.is_empty() {
            let e820 = std::mem::take(&mut self.e820);
            self = self.add_file("etc/e820", e820)?;
        }
        let count = self.files.len();
        if count > usize::from(selector::END_OF_FILES - selector::FIRST_FILE) {
            return Err(BuildError::TooManyFiles { count });
        }
        let fixed = |content: Content| StoredItem {
            name: None,
            content,
            writable: None,
            on_select: None,
        };
        let mut items = Items::default();
        for (number, content) in self.numbered {
            items.0.insert(number, fixed(content));
        }
        let features: u32 = 0b11;
        let features = features.to_le_bytes().to_vec();
        let signature = b"QEMU".to_vec();
        items.0.insert(selector::SIGNATURE, fixed(signature.into()));
        items.0.insert(selector::FEATURES, fixed(features.into()));
        items
            .0
            .extend((selector::FIRST_FILE..).zip(self.files.into_values()));
        let directory = items.directory();
        items.0.insert(selector::DIRECTORY, fixed(directory.into()));
        Ok(FwCfg::new(items, memory))
    }
}

fn check_len(item: impl FnOnce() -> String, len: u64, limit: u64) -> Result<(), BuildError> {
    if len <= limit {
        return Ok(());
    }
    Err(BuildError::TooLarge {
        item: item(),
        len,
        limit,
    })
}
