use crate::BLOCK_SIZE;
use crate::MAX_SIZE;
use crate::command::Action;
use crate::command::CommandInterface;
use crate::command::Mode;
use crate::persister::FlashControl;
use crate::persister::Persister;
use crate::queue::Block;
use crate::storage::FlashStorage;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::RestoreError;
use chipset_device::RomMapping;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestRegion;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use vm_memory::Bytes as _;
use vm_memory::GuestMemoryRegion as _;
use vm_memory::MemoryRegionAddress;

/// The configuration of a chip.
pub struct FlashConfig {
    /// Its name in logs, such as `code` or `variables`.
    pub name: String,
    /// Its memory, at its guest-physical address: see [`guest_memory::device_region`].
    pub region: GuestRegion,
    /// Maps that memory into the guest for reading.
    pub mapping: Arc<dyn RomMapping>,
}

/// Why a chip cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// The image has an invalid length.
    #[error(
        "the image of flash `{name}` has {len} bytes; it must be a multiple of {BLOCK_SIZE}, up to {MAX_SIZE}"
    )]
    Size {
        /// The chip.
        name: String,
        /// Length of the image in bytes.
        len: usize,
    },
    /// The image and the memory have different lengths.
    #[error("the image of flash `{name}` has {len} bytes, but its memory has {region}")]
    Region {
        /// The chip.
        name: String,
        /// Length of the image in bytes.
        len: usize,
        /// Length of the memory in bytes.
        region: u64,
    },
    /// The memory cannot be written.
    #[error("cannot fill the memory of flash `{name}`")]
    Fill {
        /// The chip.
        name: String,
        /// The error.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// The thread for the storage cannot be started.
    #[error("cannot start a thread for flash `{name}`")]
    Thread {
        /// The chip.
        name: String,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

/// A flash chip.
///
/// It accepts commands of one byte, as Intel's 28F family does. A wider write is a sequence of bytes.
///
/// | Byte | Command |
/// |---|---|
/// | 0xFF | array mode: reads return the content |
/// | 0x10 or 0x40, byte | program the byte at the address of the second write |
/// | 0x20, 0xD0 | set the 4 KiB block at the address of the second write to 0xFF |
/// | 0x50 | clear the status |
/// | 0x70 | reads return the status |
/// | 0x90 | reads return the identifier |
///
/// As in QEMU's chip, programming can also set bits. Programming and erasing take no time and return to array
/// mode. A reset keeps the content and returns to array mode.
pub struct Flash {
    name: String,
    region: GuestRegion,
    mapping: Arc<dyn RomMapping>,
    commands: CommandInterface,
    /// `None` for a ROM, which ignores commands.
    persister: Option<Persister>,
    mapping_failures: u64,
    mapping_log: LogLimit,
    stop_log: LogLimit,
    programmed_bytes: u64,
    erased_blocks: u64,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    mode: Mode,
    #[n(2)]
    status: u8,
    #[cbor(n(3), with = "minicbor::bytes")]
    content: Vec<u8>,
}

impl Flash {
    /// A chip that cannot be written.
    pub fn rom(config: FlashConfig, content: &[u8]) -> Result<Self, FlashError> {
        Self::new(config, content)
    }

    /// A chip that can be written, with its initial `content`. `storage` has the same content, or none.
    pub fn variables(
        config: FlashConfig,
        content: Vec<u8>,
        storage: impl FlashStorage,
    ) -> Result<Self, FlashError> {
        let mut flash = Self::new(config, &content)?;
        let persister = Persister::new(&flash.name, content, storage);
        let name = flash.name.clone();
        flash.persister = Some(persister.map_err(|source| FlashError::Thread { name, source })?);
        Ok(flash)
    }

    fn new(config: FlashConfig, content: &[u8]) -> Result<Self, FlashError> {
        let FlashConfig {
            name,
            region,
            mapping,
        } = config;
        let len = content.len();
        if len == 0 || len as u64 > MAX_SIZE || !len.is_multiple_of(BLOCK_SIZE) {
            return Err(FlashError::Size { name, len });
        }
        if region.len() != len as u64 {
            let region = region.len();
            return Err(FlashError::Region { name, len, region });
        }
        if let Err(source) = region.write_slice(content, MemoryRegionAddress(0)) {
            return Err(FlashError::Fill { name, source });
        }
        Ok(Self {
            name,
            region,
            mapping,
            commands: CommandInterface::default(),
            persister: None,
            mapping_failures: 0,
            mapping_log: LogLimit::new(),
            stop_log: LogLimit::new(),
            programmed_bytes: 0,
            erased_blocks: 0,
        })
    }

    /// Controls the storage of the chip. `None` for a ROM.
    pub fn control(&self) -> Option<FlashControl> {
        self.persister
            .as_ref()
            .map(|persister| persister.control().clone())
    }

    fn gpa(&self) -> u64 {
        self.region.start_addr().0
    }

    /// The offset of an access, which must be within the chip.
    fn offset(&self, gpa: u64, len: usize) -> Result<u64, IoError> {
        let offset = gpa
            .checked_sub(self.gpa())
            .ok_or(IoError::InvalidRegister)?;
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.region.len() => Ok(offset),
            _ => Err(IoError::InvalidAccessSize),
        }
    }

    fn load(&self, offset: u64, bytes: &mut [u8]) {
        let loaded = self.region.read_slice(bytes, MemoryRegionAddress(offset));
        debug_assert!(loaded.is_ok(), "the offset was checked");
    }

    fn store(&self, offset: u64, bytes: &[u8]) {
        let stored = self.region.write_slice(bytes, MemoryRegionAddress(offset));
        debug_assert!(stored.is_ok(), "the offset was checked");
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.region.len() as usize];
        self.load(0, &mut content);
        content
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        let Some(persister) = &self.persister else {
            return;
        };
        let was_shown = self.commands.reads_content();
        let action = self.commands.write(value);
        let index = (offset / BLOCK_SIZE as u64) as usize;
        let start = (index * BLOCK_SIZE) as u64;
        let current = |block: &mut [u8; BLOCK_SIZE]| self.load(start, block);
        match action {
            Action::Nothing => {}
            Action::Program(value) => {
                let at = (offset - start) as usize;
                persister.change(index, current, |block| block[at] = value);
                self.store(offset, &[value]);
                self.programmed_bytes += 1;
            }
            Action::Erase => {
                persister.change(index, |_| (), |block| block.fill(0xff));
                self.store(start, &[0xff; BLOCK_SIZE]);
                self.erased_blocks += 1;
            }
        }
        if was_shown != self.commands.reads_content() {
            self.show_or_hide();
        }
    }

    fn show_or_hide(&mut self) {
        let shows = self.commands.reads_content();
        let done = if shows {
            self.mapping.show()
        } else {
            self.mapping.hide()
        };
        if let Err(error) = done {
            self.mapping_failures += 1;
            if let Some(suppressed) = self.mapping_log.allow() {
                tracing::error!(
                    name = self.name,
                    gpa = self.gpa(),
                    shows,
                    suppressed,
                    error = &error as &dyn std::error::Error,
                    "cannot change the mapping of flash in the guest"
                );
            }
        }
    }

    /// Replaces the content. Returns the blocks that changed.
    fn replace(&self, content: &[u8]) -> BTreeMap<usize, Block> {
        let before = self.content();
        let blocks = before.chunks(BLOCK_SIZE).zip(content.chunks(BLOCK_SIZE));
        let changed = blocks
            .enumerate()
            .filter(|(_, (before, after))| before != after);
        let changed = changed.map(|(index, (_, after))| {
            let mut block = Box::new([0; BLOCK_SIZE]);
            block.copy_from_slice(after);
            (index, block)
        });
        let changed = changed.collect();
        self.store(0, content);
        changed
    }
}

impl ChipsetDevice for Flash {
    fn fixed_resources(&self) -> FixedResources {
        // No overflow: the region is not empty and within the address space.
        FixedResources::mmio([self.gpa()..=self.gpa() + (self.region.len() - 1)])
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let offset = self.offset(gpa, data.len())?;
        self.load(offset, data);
        for (at, byte) in (offset..).zip(data) {
            *byte = self.commands.read(at).unwrap_or(*byte);
        }
        Ok(())
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let offset = self.offset(gpa, data.len())?;
        for (at, byte) in (offset..).zip(data) {
            self.write_byte(at, *byte);
        }
        Ok(())
    }

    fn start(&mut self) {
        self.show_or_hide();
    }

    /// Returns when all changes are durable, or an attempt to store them has failed.
    fn stop(&mut self) {
        if let Some(persister) = &self.persister
            && let Err(error) = persister.control().flush()
            && let Some(suppressed) = self.stop_log.allow()
        {
            tracing::warn!(name = self.name, error = %error, suppressed, "flash was stopped with unsaved changes");
        }
    }

    fn reset(&mut self) {
        self.commands = CommandInterface::default();
        self.show_or_hide();
        if let Some(persister) = &self.persister {
            persister.start_flush();
        }
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&State {
            mode: self.commands.mode,
            status: self.commands.status,
            content: self.content(),
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if state.content.len() as u64 != self.region.len() {
            return Err(RestoreError::Invalid(format!(
                "the saved flash `{}` has {} bytes instead of {}",
                self.name,
                state.content.len(),
                self.region.len()
            )));
        }
        let commands = CommandInterface {
            mode: state.mode,
            status: state.status,
        };
        if self.persister.is_none() && commands != CommandInterface::default() {
            return Err(RestoreError::Invalid(format!(
                "the saved flash `{}` was writable, and this one is a ROM",
                self.name
            )));
        }
        self.commands = commands;
        let changed = self.replace(&state.content);
        if let Some(persister) = &self.persister {
            persister.change_together(changed);
        }
        self.show_or_hide();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let storage = self.control().map(|control| {
            let status = control.status();
            json!({
                "place": status.storage,
                "synchronized": status.pending_blocks == 0,
                "pending_blocks": status.pending_blocks,
                "persisted": status.persisted,
                "failures": status.failures,
                "last_error": status.last_error,
                "reordered": status.reordered,
            })
        });
        let digest = Sha256::digest(self.content());
        json!({
            "gpa": format!("{:#x}", self.gpa()),
            "size": self.region.len(),
            "mode": format!("{:?}", self.commands.mode),
            "status": format!("{:#04x}", self.commands.status),
            "programmed_bytes": self.programmed_bytes,
            "erased_blocks": self.erased_blocks,
            "mapping_failures": self.mapping_failures,
            "sha256": digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "storage": storage,
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
