//! Collects the items of a device.

use crate::content::ItemContent;
use crate::device::FwCfg;
use crate::item::Items;
use crate::item::Made;
use crate::item::MakeContent;
use crate::item::OnWrite;
use crate::item::StoredItem;
use crate::item::Writable;
use crate::kernel;
use crate::kernel::KernelItemError;
use crate::selector;
use guest_memory::GuestMemory;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The maximum length of a file name in bytes, without the NUL that follows it in the directory.
const MAX_NAME: usize = 55;

/// The maximum size in bytes of an item that is written or made. Its content is part of the device's saved state.
const MAX_WRITABLE: usize = 1 << 20;

/// The maximum number of files.
const MAX_FILES: usize = (selector::END_OF_FILES - selector::FIRST_FILE) as usize;

/// Feature bits: ports and DMA.
const FEATURES: u32 = 0b11;

/// The entry of the file `etc/e820` for `len` bytes of RAM at guest-physical address `start`.
pub fn e820_ram_entry(start: u64, len: u64) -> [u8; 20] {
    const RAM: u32 = 1;
    let mut entry = [0; 20];
    entry[..8].copy_from_slice(&start.to_le_bytes());
    entry[8..16].copy_from_slice(&len.to_le_bytes());
    entry[16..].copy_from_slice(&RAM.to_le_bytes());
    entry
}

/// Why a device cannot have an item.
#[derive(Debug, thiserror::Error)]
pub enum FwCfgError {
    /// A file's name does not fit into the directory.
    #[error("`{name}` is no name for a fw_cfg file: 1 to {MAX_NAME} printable ASCII characters")]
    Name {
        /// The name.
        name: String,
    },
    /// Two files have the same name.
    #[error("there are two fw_cfg files named `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two items have the same selector.
    #[error("there are two fw_cfg items with selector {selector:#x}")]
    DuplicateItem {
        /// The selector.
        selector: u16,
    },
    /// There are more files than selectors for them.
    #[error("there are {count} fw_cfg files; the limit is {MAX_FILES}")]
    TooManyFiles {
        /// The number of files.
        count: usize,
    },
    /// The content's length does not fit into the 32 bits that the interface has for it.
    #[error("the fw_cfg item `{item}` has {len} bytes; the limit is {limit}")]
    TooLarge {
        /// Its name or selector.
        item: String,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel is invalid.
    #[error(transparent)]
    Kernel(#[from] KernelItemError),
    /// The command line contains a NUL.
    #[error("the kernel command line contains a NUL")]
    CommandLine,
}

/// Collects the items that a VMM passes to its firmware.
#[derive(Default)]
#[must_use]
pub struct FwCfgBuilder {
    numbered: BTreeMap<u16, ItemContent>,
    /// Sorted by name, as in the directory.
    files: BTreeMap<String, StoredItem>,
}

impl FwCfgBuilder {
    fn add_item(
        mut self,
        selector: u16,
        content: impl Into<ItemContent>,
    ) -> Result<Self, FwCfgError> {
        let content = content.into();
        check_len(|| format!("{selector:#x}"), content.len(), u32::MAX.into())?;
        match self.numbered.entry(selector) {
            Entry::Vacant(entry) => entry.insert(content),
            Entry::Occupied(_) => return Err(FwCfgError::DuplicateItem { selector }),
        };
        Ok(self)
    }

    /// Adds a file that the guest can read.
    pub fn add_file(self, name: &str, content: impl Into<ItemContent>) -> Result<Self, FwCfgError> {
        self.insert(name, content.into(), None, None)
    }

    /// Adds a file whose content is made when the guest first selects it after a reset, such as tables that say where
    /// firmware has placed things. Until then, and where `make` returns nothing, it is `initial`. All have one length.
    ///
    /// The device is locked while `make` runs, on the thread of the VP that selects the file.
    pub fn add_made_file(
        self,
        name: &str,
        initial: Vec<u8>,
        make: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Self, FwCfgError> {
        check_len(|| name.into(), initial.len() as u64, MAX_WRITABLE as u64)?;
        self.insert(name, initial.into(), None, Some(Box::new(make)))
    }

    /// Adds a file that the guest can also write, such as one into which a write-pointer command of the table loader
    /// stores an address. Its content is `initial` at first and after a reset. Its length does not change.
    ///
    /// `on_write` is called with the whole content whenever that has changed: by the guest, by a reset or by a
    /// restored state. The device is locked during the call.
    pub fn add_writable_file(
        self,
        name: &str,
        initial: Vec<u8>,
        on_write: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Self, FwCfgError> {
        check_len(|| name.into(), initial.len() as u64, MAX_WRITABLE as u64)?;
        let content = ItemContent::from(initial.as_slice());
        self.insert(name, content, Some((initial, Box::new(on_write))), None)
    }

    fn insert(
        mut self,
        name: &str,
        content: ItemContent,
        writable: Option<(Vec<u8>, OnWrite)>,
        make: Option<MakeContent>,
    ) -> Result<Self, FwCfgError> {
        let name = name.to_owned();
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_NAME || !printable {
            return Err(FwCfgError::Name { name });
        }
        check_len(|| name.clone(), content.len(), u32::MAX.into())?;
        if self.files.contains_key(&name) {
            return Err(FwCfgError::DuplicateName { name });
        }
        let item = StoredItem {
            name: Some(name.clone()),
            content,
            writable: writable.map(|(bytes, on_write)| Writable { bytes, on_write }),
            made: make.map(|make| Made { make, done: false }),
        };
        self.files.insert(name, item);
        Ok(self)
    }

    /// Sets the number of VPs at power-on.
    pub fn boot_cpu_count(self, count: u16) -> Result<Self, FwCfgError> {
        self.add_item(selector::BOOT_CPU_COUNT, count.to_le_bytes().to_vec())
    }

    /// Sets the kernel to boot and its command line (without a NUL). The kernel is a bzImage or another PE image that
    /// UEFI can run.
    pub fn kernel(self, kernel: &ItemContent, command_line: &str) -> Result<Self, FwCfgError> {
        let (setup, rest) = kernel::split(kernel)?;
        if command_line.contains('\0') {
            return Err(FwCfgError::CommandLine);
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

    /// Sets the kernel's initial RAM disk.
    pub fn initrd(self, content: ItemContent) -> Result<Self, FwCfgError> {
        self.sized(selector::INITRD_SIZE, selector::INITRD_DATA, content)
    }

    fn sized(self, size: u16, data: u16, content: ItemContent) -> Result<Self, FwCfgError> {
        let len = content.len();
        let this = self.add_item(data, content)?;
        this.add_item(size, (len as u32).to_le_bytes().to_vec())
    }

    /// Builds the device. Its DMA descriptors and buffers are in `memory`.
    pub fn build(self, memory: GuestMemory) -> Result<FwCfg, FwCfgError> {
        let count = self.files.len();
        if count > MAX_FILES {
            return Err(FwCfgError::TooManyFiles { count });
        }
        let fixed = |content: ItemContent| StoredItem {
            name: None,
            content,
            writable: None,
            made: None,
        };
        let mut items = Items::default();
        let numbered = self.numbered.into_iter();
        items
            .0
            .extend(numbered.map(|(selector, content)| (selector, fixed(content))));
        let files = (selector::FIRST_FILE..).zip(self.files.into_values());
        items.0.extend(files);
        for (selector, bytes) in [
            (selector::SIGNATURE, b"QEMU".to_vec()),
            (selector::FEATURES, FEATURES.to_le_bytes().to_vec()),
            (selector::DIRECTORY, items.directory()),
        ] {
            items.0.insert(selector, fixed(bytes.into()));
        }
        Ok(FwCfg::new(items, memory))
    }
}

fn check_len(item: impl FnOnce() -> String, len: u64, limit: u64) -> Result<(), FwCfgError> {
    if len <= limit {
        return Ok(());
    }
    Err(FwCfgError::TooLarge {
        item: item(),
        len,
        limit,
    })
}
