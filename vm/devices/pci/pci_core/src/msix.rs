use crate::builder::LayoutError;
use chipset_device::IoError;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use serde_json::json;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Where a function has its MSI-X structures.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsixLayout {
    /// The memory BAR they are in.
    pub bar: usize,
    /// How many vectors, 1 to 2048.
    pub vectors: u16,
    /// Where in the BAR the table begins, which takes 16 bytes a vector. A multiple of 8.
    pub table_offset: u32,
    /// Where in the BAR the pending bits begin, which take 8 bytes per 64 vectors. A multiple of 8.
    pub pending_offset: u32,
}

impl MsixLayout {
    pub(crate) const CAPABILITY_ID: u8 = 0x11;

    /// The length of the table in bytes.
    pub fn table_length(&self) -> u64 {
        u64::from(self.vectors) * ENTRY_LENGTH
    }

    /// The length of the pending bits in bytes.
    pub fn pending_length(&self) -> u64 {
        u64::from(self.vectors.div_ceil(64)) * 8
    }

    /// Whether it is possible in a BAR of `room` bytes.
    pub(crate) fn fits(&self, room: u64) -> bool {
        let (table, pending) = (u64::from(self.table_offset), u64::from(self.pending_offset));
        let (table_end, pending_end) =
            (table + self.table_length(), pending + self.pending_length());
        (1..=2048).contains(&self.vectors)
            && table.is_multiple_of(8)
            && pending.is_multiple_of(8)
            && table_end.max(pending_end) <= room
            && (table_end <= pending || pending_end <= table)
    }

    /// The capability behind its header, and its writable bits.
    pub(crate) fn capability(&self) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.vectors - 1).to_le_bytes());
        // The offsets' low bits, which are zero, say which BAR.
        let bar = self.bar as u32;
        body[2..6].copy_from_slice(&(self.table_offset | bar).to_le_bytes());
        body[6..].copy_from_slice(&(self.pending_offset | bar).to_le_bytes());
        let writable = (MsixTable::CONTROL_ENABLE | MsixTable::CONTROL_MASK) >> 16;
        (body, (writable as u16).to_le_bytes())
    }
}

const ENTRY_LENGTH: u64 = 16;
/// Bits of the last word of a table entry.
const ENTRY_MASKED: u32 = 1 << 0;

/// A place in the MSI-X structures.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct MsixRegister(Place);

#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Place {
    Table(u64),
    Pending(u64),
}

/// An MSI-X vector, for those that signal it. Cheap to clone; signalling takes no lock.
///
/// What is signalled while the vector is masked is pending, and delivered when it no longer is.
#[derive(Clone)]
pub struct MsixInterrupt(Arc<dyn MsiVector>);

impl MsixInterrupt {
    /// Raises the interrupt.
    pub fn signal(&self) {
        // An eventfd whose counter is full refuses further events, and is pending enough.
        let _ = rustix::io::write(self.0.event(), &1_u64.to_ne_bytes());
    }

    /// The eventfd that raises the interrupt, for the kernel or another process to write to.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.event()
    }
}

impl std::fmt::Debug for MsixInterrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MsixInterrupt")
    }
}

/// The table of a function's vectors and their pending bits.
///
/// A vector's pending bit is the state of its eventfd: while the vector is disabled, nobody takes events
/// out of it.
pub(crate) struct MsixTable {
    layout: MsixLayout,
    /// The function as a whole may deliver.
    delivering: bool,
    vectors: Vec<Vector>,
}

struct Vector {
    interrupt: MsixInterrupt,
    entry: Entry,
    /// The message that events raise at the moment, if any.
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

    /// Bits that do not exist stay zero.
    fn from_words([low, high, data, control]: [u32; 4]) -> Self {
        Self {
            address: u64::from(high) << 32 | u64::from(low & !3),
            data,
            control: control & ENTRY_MASKED,
        }
    }
}

/// The vectors of a function.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MsixState {
    #[n(1)]
    entries: Vec<Entry>,
    /// The vectors that are pending, in ascending order.
    #[n(2)]
    pending: Vec<u16>,
}

impl MsixTable {
    /// Bits of the capability's first register.
    pub(crate) const CONTROL_ENABLE: u32 = 1 << 31;
    pub(crate) const CONTROL_MASK: u32 = 1 << 30;

    pub(crate) fn new(layout: MsixLayout, target: &dyn MsiTarget) -> Result<Self, LayoutError> {
        let vectors = (0..layout.vectors).map(|vector| match target.new_vector() {
            Ok(interrupt) => Ok(Vector {
                interrupt: MsixInterrupt(interrupt.into()),
                entry: Entry::AT_RESET,
                enabled: None,
            }),
            Err(source) => Err(LayoutError::MsixVector { vector, source }),
        });
        Ok(Self {
            layout,
            delivering: false,
            vectors: vectors.collect::<Result<_, _>>()?,
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
        let table = within(layout.table_offset, layout.table_length()).map(Place::Table);
        table
            .or_else(|| within(layout.pending_offset, layout.pending_length()).map(Place::Pending))
            .map(MsixRegister)
    }

    pub(crate) fn read(&self, register: MsixRegister, data: &mut [u8]) -> Result<(), IoError> {
        let MsixRegister(Place::Table(offset) | Place::Pending(offset)) = register;
        check_access(offset, data.len())?;
        for (word, bytes) in (offset / 4..).zip(data.chunks_exact_mut(4)) {
            let value = match register.0 {
                Place::Table(_) => self.table_word(word),
                Place::Pending(_) => self.pending_word(word),
            };
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, register: MsixRegister, data: &[u8]) -> Result<(), IoError> {
        let MsixRegister(Place::Table(offset)) = register else {
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
        vector.update(self.delivering);
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

    /// Whether vectors that are not masked themselves deliver.
    pub(crate) fn set_delivering(&mut self, delivering: bool) {
        if self.delivering != delivering {
            self.delivering = delivering;
            self.vectors.iter_mut().for_each(|v| v.update(delivering));
        }
    }

    pub(crate) fn reset(&mut self) {
        self.delivering = false;
        for vector in &mut self.vectors {
            vector.entry = Entry::AT_RESET;
            vector.update(false);
            vector.forget_events();
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
            let text = format!("{saved} MSI-X vectors, and {own} here");
            return Err(RestoreError::Invalid(text));
        }
        let impossible = |entry: &&Entry| Entry::from_words(entry.words()) != **entry;
        if let Some(entry) = state.entries.iter().find(impossible) {
            let text = format!("impossible MSI-X entry {entry:x?}");
            return Err(RestoreError::Invalid(text));
        }
        let ascending = state.pending.is_sorted_by(|a, b| a < b);
        let last = state.pending.last().copied().map_or(0, usize::from);
        if !ascending || last >= own {
            let text = format!("impossible pending vectors {:?}", state.pending);
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    /// Takes a checked state, and does not deliver until told so.
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

/// The structures take aligned accesses of 4 and 8 bytes.
fn check_access(offset: u64, len: usize) -> Result<(), IoError> {
    let fits = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    fits.then_some(()).ok_or(IoError::InvalidAccessSize)
}

impl Vector {
    /// Enables or disables the way from the eventfd, as the entry and the function say.
    fn update(&mut self, delivering: bool) {
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
                tracing::error!(?wanted, %error, "an MSI-X vector is not switched");
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

    /// Takes out what nobody else takes out while the vector is disabled.
    fn forget_events(&self) {
        // An eventfd gives all of its count at once, and an empty one may block.
        if self.is_pending() {
            let _ = rustix::io::read(self.interrupt.0.event(), &mut [0; 8]);
        }
    }
}

impl std::fmt::Debug for MsixTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MsixTable")
            .field("layout", &self.layout)
            .field("delivering", &self.delivering)
            .finish_non_exhaustive()
    }
}
