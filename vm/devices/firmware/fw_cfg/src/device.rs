use crate::content::ItemContent;
use crate::dma;
use crate::dma::Transfer;
use crate::dma::TransferError;
use crate::item::Items;
use crate::item::StoredItem;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use minicbor::bytes::ByteVec;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use vm_memory::GuestAddress;

const SELECTOR_PORT: u16 = 0x510;
const DATA_PORT: u16 = 0x511;
const DMA_PORT: u16 = 0x514;
const DMA_PORT_LOW: u16 = 0x518;
const DMA_PORT_END: u16 = 0x51b;

/// The value that the DMA address register reads as, in the order of the ports.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// A selector bit that is ignored. It selected an item for writing in early versions of the interface.
const WRITE_CHANNEL: u16 = 0x4000;

/// The maximum length in bytes of items whose digest is shown.
const MAX_DIGEST_LEN: u64 = 64 << 10;

/// The size in bytes of the buffer for reads of files by the data port.
const WINDOW: u64 = 4096;

/// The fw_cfg device, at the ports it has on a PC.
///
/// | Port | Register |
/// |---|---|
/// | 0x510 | selector, 16 bits, write only |
/// | 0x511 | data: the next byte of the selected item, read only; a wider read returns several bytes |
/// | 0x514, 0x518 | address of a DMA descriptor, 32 bits each, big-endian; a write to the second one starts the transfer |
///
/// Items that do not exist, and bytes past the end of an item, read as zeros.
pub struct FwCfg {
    items: Items,
    memory: GuestMemory,
    regs: Registers,
    window: Window,
    /// The number of failed requests.
    failures: u64,
    failure_log: LogLimit,
}

#[derive(Debug, Clone, Copy, Default)]
struct Registers {
    selected: u16,
    offset: u64,
    dma_high: u32,
}

/// The buffer for reads of a file by the data port.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    selected: u16,
    #[n(2)]
    offset: u64,
    #[n(3)]
    dma_high: u32,
    /// The content of writable files.
    #[n(4)]
    written: BTreeMap<String, ByteVec>,
    /// The content of files that were made since the last reset; absent where none could be made.
    #[n(5)]
    made: Option<BTreeMap<String, ByteVec>>,
}

impl FwCfg {
    pub(crate) fn new(items: Items, memory: GuestMemory) -> Self {
        Self {
            items,
            memory,
            regs: Registers::default(),
            window: Window::default(),
            failures: 0,
            failure_log: LogLimit::new(),
        }
    }

    fn select(&mut self, selector: u16) {
        self.regs.selected = selector & !WRITE_CHANNEL;
        self.regs.offset = 0;
        self.window = Window::default();
        if let Some(item) = self.items.get_mut(self.regs.selected) {
            item.select();
        }
    }

    fn skip(&mut self, len: u64) {
        self.regs.offset = self.regs.offset.saturating_add(len);
    }

    fn next_byte(&mut self) -> u8 {
        let offset = self.regs.offset;
        self.skip(1);
        let Some(item) = self.items.get(self.regs.selected) else {
            return 0;
        };
        if let Some(bytes) = item.as_bytes() {
            let offset = usize::try_from(offset).ok();
            return offset
                .and_then(|offset| bytes.get(offset))
                .copied()
                .unwrap_or(0);
        }
        if offset >= item.len() {
            return 0;
        }
        let window = &mut self.window;
        let start = offset - offset % WINDOW;
        if window.bytes.is_empty() || window.start != start {
            window.start = start;
            window.bytes = vec![0; (item.len() - start).min(WINDOW) as usize];
            if let Err(error) = item.content.read_at(start, &mut window.bytes) {
                // A failed read may have filled a part.
                window.bytes.fill(0);
                self.failed(&error);
            }
        }
        self.window.bytes[(offset - start) as usize]
    }

    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.failures += 1;
        if let Some(suppressed) = self.failure_log.allow() {
            tracing::warn!(
                item = self.regs.selected,
                offset = self.regs.offset,
                suppressed,
                error,
                "a fw_cfg request failed"
            );
        }
    }

    fn start_dma(&mut self, at: GuestAddress) {
        let result = self.dma(at);
        if let Err(error) = &result {
            self.failed(error);
        }
        if let Err(error) = dma::complete(&self.memory, at, &result) {
            self.failed(&error);
        }
    }

    fn dma(&mut self, at: GuestAddress) -> Result<(), TransferError> {
        let descriptor = dma::read_descriptor(&self.memory, at)?;
        if let Some(selector) = descriptor.select {
            self.select(selector);
        }
        let (len, buffer) = (descriptor.len.into(), descriptor.buffer);
        let offset = self.regs.offset;
        match descriptor.transfer {
            Transfer::Nothing => return Ok(()),
            Transfer::Skip => {}
            Transfer::Read => {
                let item = self.items.get(self.regs.selected);
                dma::read(&self.memory, item, offset, len, buffer)?;
            }
            Transfer::Write => {
                let item = self.items.get_mut(self.regs.selected);
                dma::write(&self.memory, item, offset, len, buffer)?;
            }
        }
        self.skip(len);
        Ok(())
    }

    /// Sets the content of writable items to `content`, or to the initial content if they are not in it.
    fn set_written(&mut self, content: &BTreeMap<String, ByteVec>) {
        for item in self.items.0.values_mut() {
            let Some(writable) = &mut item.writable else {
                continue;
            };
            let saved = item.name.as_ref().and_then(|name| content.get(name));
            let bytes = match saved {
                Some(bytes) => bytes.to_vec(),
                None => item.content.as_bytes().unwrap_or_default().to_vec(),
            };
            writable.set(bytes);
        }
    }

    /// Sets the content of files that were made; the others are made when the guest selects them. `None` is the state of
    /// a device whose files were all fixed: they stay as they are.
    fn set_made(&mut self, content: Option<&BTreeMap<String, ByteVec>>) {
        for item in self.items.0.values_mut() {
            let Some(made) = &mut item.made else {
                continue;
            };
            let Some(content) = content else {
                made.done = true;
                continue;
            };
            let saved = item.name.as_ref().and_then(|name| content.get(name));
            made.done = saved.is_some();
            if let Some(bytes) = saved {
                item.content = bytes.as_slice().into();
            }
        }
    }
}

impl ChipsetDevice for FwCfg {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([SELECTOR_PORT..=DATA_PORT, DMA_PORT..=DMA_PORT_END])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        match port {
            DATA_PORT => {
                for byte in data {
                    *byte = self.next_byte();
                }
                Ok(())
            }
            DMA_PORT..=DMA_PORT_END => {
                let start = usize::from(port - DMA_PORT);
                let register = DMA_SIGNATURE.get(start..start + data.len());
                data.copy_from_slice(register.ok_or(IoError::InvalidAccessSize)?);
                Ok(())
            }
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        match (port, data) {
            (SELECTOR_PORT, &[low, high]) => {
                self.select(u16::from_le_bytes([low, high]));
                Ok(())
            }
            // Writes of data were supported in early versions of the interface.
            (DATA_PORT, _) => Ok(()),
            (DMA_PORT, &[a, b, c, d]) => {
                self.regs.dma_high = u32::from_be_bytes([a, b, c, d]);
                Ok(())
            }
            (DMA_PORT_LOW, &[a, b, c, d]) => {
                let low = u32::from_be_bytes([a, b, c, d]);
                // Each request writes both halves; the upper one may be omitted if it is 0.
                let high = std::mem::take(&mut self.regs.dma_high);
                self.start_dma(GuestAddress(u64::from(high) << 32 | u64::from(low)));
                Ok(())
            }
            (SELECTOR_PORT | DMA_PORT..=DMA_PORT_END, _) => Err(IoError::InvalidAccessSize),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn reset(&mut self) {
        self.regs = Registers::default();
        self.window = Window::default();
        self.set_written(&BTreeMap::new());
        self.set_made(Some(&BTreeMap::new()));
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let written = self.items.0.values().filter_map(|item| {
            let bytes = item.writable.as_ref()?.bytes.clone();
            Some((item.name.clone()?, bytes.into()))
        });
        let made = self.items.0.values().filter_map(|item| {
            item.made.as_ref().filter(|made| made.done)?;
            let bytes = item.content.as_bytes()?.to_vec();
            Some((item.name.clone()?, bytes.into()))
        });
        Ok(SavedState::encode(&State {
            selected: self.regs.selected,
            offset: self.regs.offset,
            dma_high: self.regs.dma_high,
            written: written.collect(),
            made: Some(made.collect()),
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if state.selected & WRITE_CHANNEL != 0 {
            return Err(RestoreError::Invalid(format!(
                "invalid fw_cfg selector {:#x}",
                state.selected
            )));
        }
        type IsOfKind = fn(&StoredItem) -> bool;
        let (writable, made): (IsOfKind, IsOfKind) =
            (|item| item.writable.is_some(), |item| item.made.is_some());
        let written = state
            .written
            .iter()
            .map(|file| ("writable", writable, file));
        let made = state.made.iter().flatten().map(|file| ("made", made, file));
        for (kind, is_of_kind, (name, bytes)) in written.chain(made) {
            let mut items = self.items.0.values();
            let item = items.find(|item| {
                item.name.as_ref() == Some(name)
                    && is_of_kind(item)
                    && item.len() == bytes.len() as u64
            });
            if item.is_none() {
                return Err(RestoreError::Invalid(format!(
                    "there is no {kind} fw_cfg file `{name}` of {} bytes, which the saved device has",
                    bytes.len()
                )));
            }
        }
        self.regs = Registers {
            selected: state.selected,
            offset: state.offset,
            dma_high: state.dma_high,
        };
        self.window = Window::default();
        self.set_written(&state.written);
        self.set_made(state.made.as_ref());
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let items = self.items.0.iter().map(|(selector, item)| {
            json!({
                "selector": format!("{selector:#x}"),
                "name": item.name,
                "size": item.len(),
                "writable": item.writable.is_some(),
                "made": item.made.as_ref().map(|made| made.done),
                "sha256": digest(&item.content),
            })
        });
        json!({
            "selected": format!("{:#x}", self.regs.selected),
            "offset": self.regs.offset,
            "failed_requests": self.failures,
            "items": items.collect::<Vec<_>>(),
        })
    }
}

/// The SHA-256 of a short content, in hexadecimal.
fn digest(content: &ItemContent) -> Option<String> {
    if content.len() > MAX_DIGEST_LEN {
        return None;
    }
    let mut bytes = vec![0; content.len() as usize];
    content.read_at(0, &mut bytes).ok()?;
    let digest = Sha256::digest(&bytes);
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
