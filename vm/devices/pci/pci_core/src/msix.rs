use crate::error::PciLayoutError;
use crate::msix_layout::ENTRY_LENGTH;
use crate::msix_layout::MsixLayout;
use chipset_device::IoError;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use chipset_device::RestoreError;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use serde_json::json;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bits of the last word of a table entry.
const ENTRY_MASKED: u32 = 1 << 0;

/// A location in the MSI-X structures.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsixRegister(Structure);

/// A structure and an offset into it, in bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Structure {
    Table(u64),
    Pending(u64),
}

/// An MSI-X vector, to be signalled by the device. Cheap to clone; signalling takes no lock.
///
/// A signal while the vector is masked is pending, and delivered when it is unmasked.
#[derive(Clone)]
pub struct MsixInterrupt(Arc<dyn MsiVector>);

impl MsixInterrupt {
    /// Raises the interrupt.
    pub fn signal(&self) {
        // If the counter is full, the eventfd is already pending.
        let _ = rustix::io::write(self.0.event(), &1_u64.to_ne_bytes());
    }

    /// The eventfd that raises the interrupt, for the kernel or another process to write to.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.event()
    }
}

/// The MSI-X table of a function and its pending bits.
///
/// A vector's pending bit is the state of its eventfd, which is not read while the vector is disabled.
pub(crate) struct MsixTable {
    layout: MsixLayout,
    /// Whether the function as a whole may deliver interrupts.
    delivering: bool,
    vectors: Vec<Vector>,
    failures: LogLimit,
}

struct Vector {
    interrupt: MsixInterrupt,
    entry: Entry,
    /// The message that events currently raise; `None` while they are held back.
    enabled: Option<MsiMessage>,
}

#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Entry {
    #[n(1)]
    address: u64,
    #[n(2)]
    data: u32,
    #[n(3)]
    control: u32,
}

impl Entry {
    const AT_RESET: Self = Self {
        address: 0,
        data: 0,
        control: ENTRY_MASKED,
    };

    fn words(&self) -> [u32; 4] {
        let (low, high) = (self.address as u32, (self.address >> 32) as u32);
        [low, high, self.data, self.control]
    }

    /// Reserved bits are cleared.
    fn from_words([low, high, data, control]: [u32; 4]) -> Self {
        Self {
            address: u64::from(high) << 32 | u64::from(low & !3),
            data,
            control: control & ENTRY_MASKED,
        }
    }
}

/// The saved state of an MSI-X table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MsixState {
    #[n(1)]
    entries: Vec<Entry>,
    /// The pending vectors, in ascending order.
    #[n(2)]
    pending: Vec<u16>,
}

impl MsixTable {
    pub(crate) fn new(layout: MsixLayout, target: &dyn MsiTarget) -> Result<Self, PciLayoutError> {
        let vectors = (0..layout.vectors).map(|vector| match target.new_vector() {
            Ok(interrupt) => Ok(Vector {
                interrupt: MsixInterrupt(interrupt.into()),
                entry: Entry::AT_RESET,
                enabled: None,
            }),
            Err(source) => Err(PciLayoutError::MsixVector { vector, source }),
        });
        Ok(Self {
            layout,
            delivering: false,
            vectors: vectors.collect::<Result<_, _>>()?,
            failures: LogLimit::new(),
        })
    }

    pub(crate) fn len(&self) -> u16 {
        self.layout.vectors
    }

    pub(crate) fn interrupt(&self, vector: u16) -> Option<MsixInterrupt> {
        let vector = self.vectors.get(usize::from(vector))?;
        Some(vector.interrupt.clone())
    }

    pub(crate) fn locate(&self, bar: usize, offset: u64) -> Option<MsixRegister> {
        if bar != self.layout.bar {
            return None;
        }
        let within = |start: u32, length: u64| {
            let offset = offset.checked_sub(start.into())?;
            (offset < length).then_some(offset)
        };
        let layout = &self.layout;
        let table = within(layout.table_offset, layout.table_length()).map(Structure::Table);
        table
            .or_else(|| {
                within(layout.pending_offset, layout.pending_length()).map(Structure::Pending)
            })
            .map(MsixRegister)
    }

    pub(crate) fn read(&self, register: MsixRegister, data: &mut [u8]) -> Result<(), IoError> {
        let MsixRegister(Structure::Table(offset) | Structure::Pending(offset)) = register;
        check_access(offset, data.len())?;
        for (word, bytes) in (offset / 4..).zip(data.chunks_exact_mut(4)) {
            let value = match register.0 {
                Structure::Table(_) => self.table_word(word),
                Structure::Pending(_) => self.pending_word(word),
            };
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, register: MsixRegister, data: &[u8]) -> Result<(), IoError> {
        let MsixRegister(Structure::Table(offset)) = register else {
            // Pending bits are read-only.
            return Ok(());
        };
        check_access(offset, data.len())?;
        let Some(vector) = self.vectors.get_mut((offset / ENTRY_LENGTH) as usize) else {
            return Err(IoError::InvalidRegister);
        };
        let mut words = vector.entry.words();
        let first = (offset % ENTRY_LENGTH / 4) as usize;
        for (word, bytes) in words[first..].iter_mut().zip(data.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        vector.entry = Entry::from_words(words);
        vector.update(self.delivering, &self.failures);
        Ok(())
    }

    fn table_word(&self, word: u64) -> u32 {
        let vector = self.vectors.get((word / 4) as usize);
        vector.map_or(u32::MAX, |vector| vector.entry.words()[(word % 4) as usize])
    }

    fn pending_word(&self, word: u64) -> u32 {
        let first = word as usize * 32;
        let vectors = self.vectors.iter().skip(first).take(32);
        vectors.enumerate().fold(0, |bits, (bit, vector)| {
            bits | u32::from(vector.is_pending()) << bit
        })
    }

    /// Sets whether vectors that are not masked deliver.
    pub(crate) fn set_delivering(&mut self, delivering: bool) {
        if self.delivering != delivering {
            self.delivering = delivering;
            for vector in &mut self.vectors {
                vector.update(delivering, &self.failures);
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        self.delivering = false;
        for vector in &mut self.vectors {
            vector.entry = Entry::AT_RESET;
            vector.update(false, &self.failures);
            vector.discard_events();
        }
    }

    pub(crate) fn save(&self) -> MsixState {
        let vectors = (0..).zip(&self.vectors);
        let pending = vectors.filter(|(_, vector)| vector.is_pending());
        MsixState {
            entries: self.vectors.iter().map(|vector| vector.entry).collect(),
            pending: pending.map(|(index, _)| index).collect(),
        }
    }

    pub(crate) fn check(&self, state: &MsixState) -> Result<(), RestoreError> {
        let (saved, own) = (state.entries.len(), self.vectors.len());
        if saved != own {
            let text = format!("{saved} MSI-X vectors instead of {own}");
            return Err(RestoreError::Invalid(text));
        }
        let invalid = |entry: &&Entry| Entry::from_words(entry.words()) != **entry;
        if let Some(entry) = state.entries.iter().find(invalid) {
            let text = format!("invalid MSI-X table entry {entry:x?}");
            return Err(RestoreError::Invalid(text));
        }
        let ascending = state.pending.is_sorted_by(|a, b| a < b);
        let last = state.pending.last().copied().map_or(0, usize::from);
        if !ascending || last >= own {
            let text = format!("invalid pending MSI-X vectors {:?}", state.pending);
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    /// Loads a state that was checked. Nothing is delivered until [`Self::set_delivering`] is called.
    pub(crate) fn load(&mut self, state: &MsixState) {
        self.reset();
        for (vector, entry) in self.vectors.iter_mut().zip(&state.entries) {
            vector.entry = *entry;
        }
        for index in &state.pending {
            if let Some(vector) = self.vectors.get(usize::from(*index)) {
                vector.interrupt.signal();
            }
        }
    }

    pub(crate) fn inspect(&self) -> serde_json::Value {
        let enabled = self.vectors.iter().filter(|v| v.enabled.is_some());
        let pending = (0..).zip(&self.vectors).filter(|(_, v)| v.is_pending());
        json!({
            "vectors": self.layout.vectors,
            "delivering": enabled.count(),
            "pending": pending.map(|(index, _)| index).collect::<Vec<u16>>(),
        })
    }
}

/// The structures support aligned accesses of 4 and 8 bytes.
fn check_access(offset: u64, len: usize) -> Result<(), IoError> {
    let fits = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    fits.then_some(()).ok_or(IoError::InvalidAccessSize)
}

impl Vector {
    /// Enables or disables delivery of the eventfd, as the table entry and the function say.
    fn update(&mut self, delivering: bool, failures: &LogLimit) {
        let masked = self.entry.control & ENTRY_MASKED != 0;
        let wanted = (delivering && !masked).then_some(MsiMessage {
            address: self.entry.address,
            data: self.entry.data,
        });
        if wanted == self.enabled {
            return;
        }
        let result = match wanted {
            Some(message) => self.interrupt.0.enable(message),
            None => self.interrupt.0.disable(),
        };
        match result {
            Ok(()) => self.enabled = wanted,
            // Tried again at the next change.
            Err(error) => {
                if let Some(suppressed) = failures.allow() {
                    tracing::error!(?wanted, %error, suppressed, "cannot change the route of an MSI-X vector");
                }
            }
        }
    }

    fn is_pending(&self) -> bool {
        self.enabled.is_none() && self.has_event()
    }

    fn has_event(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(
            self.interrupt.0.event(),
            PollFlags::IN,
        )];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
            && fds[0].revents().contains(PollFlags::IN)
    }

    /// Discards pending events, which stay in the eventfd while the vector is disabled.
    fn discard_events(&self) {
        // A read returns the whole count at once. A read of an empty eventfd may block.
        if self.is_pending() {
            let _ = rustix::io::read(self.interrupt.0.event(), &mut [0; 8]);
        }
    }
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
