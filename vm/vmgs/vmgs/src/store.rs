//! An open store: how it is opened, formatted and asked about.

use crate::alloc::Extent;
use crate::device::BlockDevice;
use crate::disk::Disk;
use crate::disk::byte_of;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::event::Event;
use crate::event::EventSink;
use crate::finding::Finding;
use crate::finding::Severity;
use crate::header::HeaderScan;
use crate::state::FileRecord;
use crate::state::State;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;
use vmgs_format::FileTable;
use vmgs_format::HEADER_AREA_SIZE;
use vmgs_format::MetadataKeyRecord;
use vmgs_format::Version;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

/// Whether a store may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// It is never written, not even to clear the reprovisioned marker.
    ReadOnly,
    /// It may be changed. Opening clears the reprovisioned marker if it is set.
    #[default]
    ReadWrite,
}

/// What to do about a damaged header if the other is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderPolicy {
    /// Use the other, and report it. The format cannot tell a torn write from a rollback.
    #[default]
    FallBack,
    /// Refuse the store.
    Strict,
}

/// How to open a store.
#[derive(Default)]
pub struct OpenOptions {
    /// Whether it may be changed.
    pub access: Access,
    /// What to do about a damaged header.
    pub headers: HeaderPolicy,
    /// Who hears of what goes wrong.
    pub events: EventSink,
}

/// Whether to format a store that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnProblem {
    /// Leave it alone and fail.
    #[default]
    Fail,
    /// Format it.
    Format,
}

/// What to do if there is no usable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenPolicy {
    /// If nothing was ever stored.
    pub on_empty: OnProblem,
    /// If what is there is no store or a damaged one. Devices that fail, and stores of versions that
    /// are not supported, are never formatted: their content may be fine.
    pub on_corrupt: OnProblem,
}

/// Why a store was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisioningReason {
    /// Nothing was stored.
    Empty,
    /// The store was damaged.
    Failure,
    /// It was asked for.
    Request,
}

/// A file's sizes and protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes of the blocks it has.
    pub allocated_bytes: u64,
    /// Bytes of its content.
    pub valid_bytes: u64,
    /// Whether its content is encrypted.
    pub encrypted: bool,
}

/// An open store.
///
/// Changes are atomic: each is [committed](Vmgs::commit) by writing one header, after everything the
/// header leads to has been made durable, and is itself durable when the call returns. A change that
/// fails leaves the store as it was.
pub struct Vmgs {
    pub(crate) disk: Disk,
    pub(crate) state: State,
    pub(crate) access: Access,
    headers: HeaderPolicy,
    pub(crate) events: EventSink,
    pub(crate) findings: Vec<Finding>,
    /// Blocks that the other header leads to, to be spared if there is room: they are what remains if
    /// the active header is damaged.
    pub(crate) previous: Option<Vec<Extent>>,
    /// The header in force is known to be on the medium, not only in a cache.
    pub(crate) header_durable: bool,
    /// A commit failed after its header may have been written.
    pub(crate) in_doubt: bool,
    pub(crate) provisioned: Option<ProvisioningReason>,
}

impl Vmgs {
    /// Opens the store on `device`.
    pub fn open(device: Box<dyn BlockDevice>, options: OpenOptions) -> Result<Self, Error> {
        Self::open_on(Disk::new(device)?, options).map_err(|(error, _)| error)
    }

    fn open_on(mut disk: Disk, options: OpenOptions) -> Result<Self, (Error, (Disk, OpenOptions))> {
        match load(&mut disk, options.headers) {
            Ok(loaded) => {
                let mut store = Self::assemble(disk, loaded, options);
                if store.access == Access::ReadWrite
                    && store.state.reprovisioned
                    && let Err(error) = store.set_marker(false)
                {
                    let Self {
                        disk,
                        events,
                        access,
                        headers,
                        ..
                    } = store;
                    let options = OpenOptions {
                        access,
                        headers,
                        events,
                    };
                    return Err((error, (disk, options)));
                }
                Ok(store)
            }
            Err(error) => Err((error, (disk, options))),
        }
    }

    pub(crate) fn assemble(disk: Disk, loaded: Loaded, options: OpenOptions) -> Self {
        let access = if disk.is_read_only() {
            Access::ReadOnly
        } else {
            options.access
        };
        for finding in &loaded.findings {
            match finding.severity() {
                Severity::Note => tracing::debug!(%finding, "store finding"),
                Severity::Warning | Severity::Error => tracing::warn!(%finding, "store finding"),
            }
        }
        Self {
            disk,
            state: loaded.state,
            access,
            headers: options.headers,
            events: options.events,
            findings: loaded.findings,
            previous: loaded.previous,
            header_durable: false,
            in_doubt: false,
            provisioned: None,
        }
    }

    /// Opens the store on `device`, or formats the device if `policy` says so.
    pub fn open_or_format(
        device: Box<dyn BlockDevice>,
        options: OpenOptions,
        policy: OpenPolicy,
    ) -> Result<Self, Error> {
        let opened = match Disk::new(device) {
            Ok(disk) => Self::open_on(disk, options),
            Err(error) => {
                options.events.send(Event::of_open_failure(&error));
                return Err(error);
            }
        };
        let (error, (disk, options)) = match opened {
            Ok(store) => return Ok(store),
            Err(failure) => failure,
        };
        let reason = match (error.kind(), policy.on_empty, policy.on_corrupt) {
            (ErrorKind::Empty, OnProblem::Format, _) => ProvisioningReason::Empty,
            (ErrorKind::Empty | ErrorKind::Corrupt, _, OnProblem::Format) => {
                ProvisioningReason::Failure
            }
            _ => {
                options.events.send(Event::of_open_failure(&error));
                return Err(error);
            }
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            ?reason,
            "formatting the store"
        );
        Self::format_on(disk, options, reason)
    }

    /// Formats the device, whatever is on it.
    pub fn format(device: Box<dyn BlockDevice>, options: OpenOptions) -> Result<Self, Error> {
        Self::format_on(Disk::new(device)?, options, ProvisioningReason::Request)
    }

    /// Formats the device once: if the last thing that happened to the store was that this function
    /// formatted it, it is opened and left alone. Opening it in any other way allows it to be
    /// formatted again.
    pub fn format_once(device: Box<dyn BlockDevice>, options: OpenOptions) -> Result<Self, Error> {
        let mut disk = Disk::new(device)?;
        if let Ok(loaded) = load(&mut disk, options.headers)
            && loaded.state.reprovisioned
        {
            return Ok(Self::assemble(disk, loaded, options));
        }
        let mut store = Self::format_on(disk, options, ProvisioningReason::Request)?;
        store.set_marker(true)?;
        Ok(store)
    }

    fn format_on(
        mut disk: Disk,
        options: OpenOptions,
        reason: ProvisioningReason,
    ) -> Result<Self, Error> {
        if options.access == Access::ReadOnly || disk.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let table = FIRST_DATA_BLOCK;
        let extended = Extent::new(table + 1, 1);
        let blocks = disk.geometry.blocks;
        if extended.end() > u64::from(blocks) {
            return Err(Error::NoSpace {
                id: FileId::EXTENDED_FILE_TABLE,
                blocks: 1,
            });
        }
        tracing::info!(blocks, ?reason, "formatting a store");
        let mut state = State {
            slot: 0,
            sequence: 1,
            version: Version::V3_0,
            algorithm: EncryptionAlgorithm::NONE,
            reprovisioned: false,
            records: [MetadataKeyRecord::EMPTY; 2],
            table,
            files: std::array::from_fn(|_| None),
            unlocked: None,
            extended_stale: false,
        };
        if let Some(file) = state.file_mut(FileId::EXTENDED_FILE_TABLE) {
            *file = Some(FileRecord::plain(extended, BLOCK_SIZE.into()));
        }

        // The header in force goes last: until then an old store is still there, whole.
        let geometry = disk.geometry;
        let active = HeaderScan::read_with(disk.device(), &geometry)?.active();
        let area = vec![0; HEADER_AREA_SIZE];
        let split = disk.geometry.sector_size as usize;
        if matches!(active, Ok(0)) {
            disk.write(split as u64, &area[split..])?;
            disk.flush()?;
            disk.write(0, &area[..split])?;
        } else {
            disk.write(0, &area[..split])?;
            disk.flush()?;
            disk.write(split as u64, &area[split..])?;
        }
        disk.flush()?;
        disk.write(byte_of(table), state.to_table().as_bytes())?;
        disk.write(byte_of(extended.start), &state.to_extended_table())?;
        disk.flush()?;
        disk.write(disk.geometry.header_offset(0), state.to_header().as_bytes())?;
        disk.flush()?;

        let loaded = Loaded {
            state,
            previous: Some(Vec::new()),
            findings: Vec::new(),
        };
        let mut store = Self::assemble(disk, loaded, options);
        store.header_durable = true;
        store.provisioned = Some(reason);
        store.events.send(Event::Provisioned(reason));
        Ok(store)
    }

    /// Reads the store again, as after opening it, and unlocks it with the key it was unlocked with.
    ///
    /// To be done when a change failed with [`Error::InDoubt`] or may have: it finds out whether the
    /// change happened.
    pub fn reload(&mut self) -> Result<(), Error> {
        let loaded = load(&mut self.disk, self.headers)?;
        let key = self
            .state
            .unlocked
            .as_ref()
            .map(|u| u.datastore_key.clone());
        self.state = loaded.state;
        self.previous = loaded.previous;
        self.findings = loaded.findings;
        self.header_durable = false;
        self.in_doubt = false;
        match key {
            Some(key) if self.state.is_encrypted() => self.unlock(&key),
            _ => Ok(()),
        }
    }

    /// Whether a change failed in such a way that it may have happened. Changes fail until the store is
    /// [reloaded](Vmgs::reload).
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Gives the device back.
    pub fn into_device(self) -> Box<dyn BlockDevice> {
        self.disk.into_device()
    }

    /// What opening the store found that is not as it should be.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Why the store was formatted, if this handle did.
    pub fn provisioned(&self) -> Option<ProvisioningReason> {
        self.provisioned
    }

    /// The format version of the store.
    pub fn version(&self) -> Version {
        self.state.version
    }

    /// Whether the store was [formatted on request](Vmgs::format_once) and not opened normally since.
    pub fn is_reprovisioned(&self) -> bool {
        self.state.reprovisioned
    }

    /// The slot and the sequence number of the header in force.
    pub fn active_header(&self) -> (usize, u32) {
        (self.state.slot, self.state.sequence)
    }

    /// How encrypted files are encrypted.
    pub fn encryption_algorithm(&self) -> EncryptionAlgorithm {
        self.state.algorithm
    }

    /// Whether the store has keys.
    pub fn is_encrypted(&self) -> bool {
        self.state.is_encrypted()
    }

    /// Whether the store has keys, and none was given yet.
    pub fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// How many keys open the store, or seem to.
    pub fn key_count(&self) -> usize {
        self.state
            .records
            .iter()
            .filter(|r| r.is_occupied())
            .count()
    }

    /// Bytes of the device, at most 16 TiB.
    pub fn device_size(&self) -> u64 {
        self.disk.geometry.len
    }

    /// Bytes in all blocks that no file uses.
    pub fn free_size(&self) -> u64 {
        self.free_gaps()
            .map(|gap| u64::from(gap.blocks) * u64::from(BLOCK_SIZE))
            .sum()
    }

    /// Bytes in the longest run of blocks that no file uses: the largest file that can be added,
    /// after the block that the file table needs.
    pub fn largest_gap(&self) -> u64 {
        self.free_gaps()
            .map(|gap| u64::from(gap.blocks) * u64::from(BLOCK_SIZE))
            .max()
            .unwrap_or(0)
    }

    fn free_gaps(&self) -> impl Iterator<Item = Extent> {
        let occupied = crate::alloc::Occupied::new(self.disk.geometry.blocks, self.state.extents());
        occupied.gaps().collect::<Vec<_>>().into_iter()
    }

    /// The file's sizes. Works for the two tables too, and while the store is locked.
    pub fn file_info(&self, id: FileId) -> Result<FileInfo, Error> {
        if id.range() == FileIdRange::OutOfRange {
            return Err(Error::InvalidFileId(id));
        }
        if id == FileId::FILE_TABLE {
            let bytes = u64::from(BLOCK_SIZE);
            return Ok(FileInfo {
                allocated_bytes: bytes,
                valid_bytes: bytes,
                encrypted: false,
            });
        }
        let file = self.state.file(id).ok_or(Error::NotAllocated(id))?;
        Ok(FileInfo {
            allocated_bytes: u64::from(file.extent.blocks) * u64::from(BLOCK_SIZE),
            valid_bytes: file.size,
            encrypted: self.is_file_encrypted(file),
        })
    }

    /// Whether there is such a file.
    pub fn is_allocated(&self, id: FileId) -> bool {
        self.file_info(id).is_ok()
    }

    /// All files, the tables among them, by id.
    pub fn files(&self) -> impl Iterator<Item = (FileId, FileInfo)> + '_ {
        (0..64).filter_map(|id| Some((FileId(id), self.file_info(FileId(id)).ok()?)))
    }

    /// The first block of a file or table and how many it has, as its entry says.
    pub fn file_location(&self, id: FileId) -> Result<(u32, u32), Error> {
        if id == FileId::FILE_TABLE {
            return Ok((self.state.table, 1));
        }
        let file = self.state.file(id).ok_or(Error::NotAllocated(id))?;
        Ok((file.extent.start, file.extent.blocks))
    }

    /// Makes everything durable that was written. Changes already are when they return.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.disk.flush()
    }
}

pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) previous: Option<Vec<Extent>>,
    pub(crate) findings: Vec<Finding>,
}

fn read_table(disk: &mut Disk, block: u32) -> Result<FileTable, Error> {
    let mut table = FileTable::new_zeroed();
    disk.read(byte_of(block), table.as_mut_bytes())?;
    Ok(table)
}

/// Reads headers and file table.
pub(crate) fn load(disk: &mut Disk, policy: HeaderPolicy) -> Result<Loaded, Error> {
    let geometry = disk.geometry;
    let scan = HeaderScan::read_with(disk.device(), &geometry)?;
    let slot = scan.active()?;
    let other = 1 - slot;
    let mut findings = scan.findings(slot);
    if policy == HeaderPolicy::Strict
        && findings
            .iter()
            .any(|f| matches!(f, Finding::DamagedHeader { .. }))
        && let Err(source) = scan.validity[other]
    {
        return Err(Error::DamagedHeader {
            slot: other,
            source,
        });
    }
    let table = read_table(disk, scan.headers[slot].file_table_offset.get())?;
    let state = State::parse(slot, &scan.headers[slot], &table, &geometry);
    findings.extend(state.findings(&table));

    // What the other header leads to is spared if it can be read; it is not needed otherwise.
    let previous = scan.validity[other].is_ok().then(|| {
        let header = &scan.headers[other];
        let block = header.file_table_offset.get();
        let table = read_table(disk, block).ok()?;
        Some(State::parse(other, header, &table, &geometry).extents())
    });
    Ok(Loaded {
        state,
        previous: previous.flatten(),
        findings,
    })
}
