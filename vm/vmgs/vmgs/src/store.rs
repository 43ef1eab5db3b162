//! An open store: opening, formatting, and queries.

use crate::alloc::Extent;
use crate::commit::blocks_for;
use crate::commit::user_file;
use crate::device::BlockDevice;
use crate::disk::Disk;
use crate::disk::byte_of;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::finding::Finding;
use crate::finding::Severity;
use crate::header::HeaderScan;
use crate::options::HeaderPolicy;
use crate::options::OnProblem;
use crate::options::OpenOptions;
use crate::options::OpenPolicy;
use crate::options::StoreAccess;
use crate::provisioning::ProvisioningReason;
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

/// The sizes and protection of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Length of the file's blocks in bytes.
    pub allocated_bytes: u64,
    /// Length of the content in bytes.
    pub valid_bytes: u64,
    /// Whether the content is encrypted.
    pub encrypted: bool,
}

/// An open store.
///
/// Changes are atomic: each is [committed](Vmgs::commit) by writing one header, after all that the header
/// refers to is durable, and is itself durable when the call returns. A change that fails leaves the
/// store as it was.
pub struct Vmgs {
    pub(crate) disk: Disk,
    pub(crate) state: State,
    pub(crate) access: StoreAccess,
    headers: HeaderPolicy,
    pub(crate) findings: Vec<Finding>,
    /// The blocks that the other header refers to. They are not overwritten if there is other space,
    /// because they are used if the active header is damaged.
    pub(crate) previous: Option<Vec<Extent>>,
    /// The active header is known to be on the medium, not only in a cache. Else a flush does not put it there: if
    /// flushing it failed, perhaps in another process, the cache holds it and is not dirty.
    pub(crate) header_durable: bool,
    /// A commit failed and may have taken effect.
    pub(crate) in_doubt: bool,
    pub(crate) provisioned: Option<ProvisioningReason>,
    /// A zero metadata key opens the tables of this generation or of the one before.
    pub(crate) exposed: bool,
    /// The files for which blocks are kept free, and how many.
    pub(crate) reserved: Vec<(FileId, u32)>,
}

/// Finds data on a device without headers: any byte that is not zero. What formatting writes before the header does not
/// count.
fn find_data(disk: &mut Disk) -> Result<Option<u64>, Error> {
    let fresh = fresh_state();
    let tables = [
        fresh.to_table().as_bytes(),
        fresh.to_extended_table().as_slice(),
    ]
    .concat();
    let tables_at = byte_of(FIRST_DATA_BLOCK);
    let written = |at: u64| {
        let index = at.checked_sub(tables_at)?;
        tables.get(usize::try_from(index).ok()?).copied()
    };
    let mut chunk = vec![0; 1 << 20];
    let mut position = 0;
    while let Some(offset) = disk.next_data(position)? {
        let len = (disk.geometry.len - offset).min(chunk.len() as u64);
        let chunk = &mut chunk[..len as usize];
        disk.read(offset, chunk)?;
        let mut data = (offset..).zip(&*chunk);
        let found = data.find(|(at, byte)| **byte != 0 && written(*at) != Some(**byte));
        if let Some((at, _)) = found {
            return Ok(Some(at));
        }
        position = offset + len;
    }
    Ok(None)
}

/// A store without files, as formatting makes it.
fn fresh_state() -> State {
    let mut state = State {
        slot: 0,
        sequence: 1,
        version: Version::V3_0,
        algorithm: EncryptionAlgorithm::NONE,
        reprovisioned: false,
        records: [MetadataKeyRecord::EMPTY; 2],
        table: FIRST_DATA_BLOCK,
        files: std::array::from_fn(|_| None),
        unlocked: None,
        extended_stale: false,
    };
    let extended = Extent::new(FIRST_DATA_BLOCK + 1, 1);
    if let Some(file) = state.file_mut(FileId::EXTENDED_FILE_TABLE) {
        *file = Some(FileRecord::plain(extended, BLOCK_SIZE.into()));
    }
    state
}

impl Vmgs {
    /// Opens the store on `device`.
    pub fn open(device: Box<dyn BlockDevice>, options: OpenOptions) -> Result<Self, Error> {
        let mut disk = Disk::new(device)?;
        let loaded = load(&mut disk, options.headers)?;
        Self::opened(disk, loaded, options)
    }

    /// Opens the store on `device`, or formats the device as `policy` says.
    pub fn open_or_format(
        device: Box<dyn BlockDevice>,
        options: OpenOptions,
        policy: OpenPolicy,
    ) -> Result<Self, Error> {
        let mut disk = Disk::new(device)?;
        let mut error = match load(&mut disk, options.headers) {
            Ok(loaded) => return Self::opened(disk, loaded, options),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::Empty
            && let Some(offset) = find_data(&mut disk)?
        {
            error = Error::NotBlank { offset };
        }
        let reason = match (error.kind(), policy.on_empty, policy.on_corrupt) {
            (ErrorKind::Empty, OnProblem::Format, _) => ProvisioningReason::Empty,
            (ErrorKind::Empty | ErrorKind::Corrupt, _, OnProblem::Format) => {
                ProvisioningReason::Failure
            }
            _ => return Err(error),
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            ?reason,
            "formatting the store"
        );
        Self::format_on(disk, options, reason)
    }

    /// The store with this state, after a normal opening: the reprovisioned marker is cleared.
    pub(crate) fn opened(disk: Disk, loaded: Loaded, options: OpenOptions) -> Result<Self, Error> {
        let mut store = Self::assemble(disk, loaded, options);
        if store.access == StoreAccess::ReadWrite && store.state.reprovisioned {
            store.set_marker(false)?;
        }
        Ok(store)
    }

    fn assemble(disk: Disk, loaded: Loaded, options: OpenOptions) -> Self {
        for finding in &loaded.findings {
            match finding.severity() {
                Severity::Note => tracing::debug!(%finding, "problem in the store"),
                Severity::Warning | Severity::Error => {
                    tracing::warn!(%finding, "problem in the store");
                }
            }
        }
        Self {
            access: if disk.is_read_only() {
                StoreAccess::ReadOnly
            } else {
                options.access
            },
            disk,
            state: loaded.state,
            headers: options.headers,
            findings: loaded.findings,
            previous: loaded.previous,
            header_durable: false,
            in_doubt: false,
            provisioned: None,
            exposed: false,
            reserved: Vec::new(),
        }
    }

    /// Formats the device, whatever its content.
    pub fn format(device: Box<dyn BlockDevice>, options: OpenOptions) -> Result<Self, Error> {
        Self::format_on(Disk::new(device)?, options, ProvisioningReason::Request)
    }

    /// Formats the device once: a store that this function formatted and that was not opened in another
    /// way since is opened and not formatted again.
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
        if options.access == StoreAccess::ReadOnly || disk.is_read_only() {
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
        tracing::info!(blocks, ?reason, "formatting the device");
        let state = fresh_state();

        // The active header is wiped last: until then, an old store is intact.
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
        Ok(store)
    }

    /// Reads the store again and unlocks it with the same key as before.
    ///
    /// This determines whether a change that is [in doubt](Vmgs::is_in_doubt) has taken effect.
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

    /// Whether a change failed while it wrote or flushed the header, and may have taken effect. Further
    /// changes fail until the store is [reloaded](Vmgs::reload).
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The problems that were found when the store was opened, and that no change has repaired since.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Why this handle formatted the store, if it did.
    pub fn provisioned(&self) -> Option<ProvisioningReason> {
        self.provisioned
    }

    /// The format version of the store.
    pub fn version(&self) -> Version {
        self.state.version
    }

    /// Whether the store was formatted by [`format_once`](Vmgs::format_once) and not opened normally since.
    pub fn is_reprovisioned(&self) -> bool {
        self.state.reprovisioned
    }

    /// The slot (0 or 1) and the sequence number of the active header.
    pub fn active_header(&self) -> (usize, u32) {
        (self.state.slot, self.state.sequence)
    }

    /// The algorithm that encrypts files.
    pub fn encryption_algorithm(&self) -> EncryptionAlgorithm {
        self.state.algorithm
    }

    /// Whether the store has keys.
    pub fn is_encrypted(&self) -> bool {
        self.state.is_encrypted()
    }

    /// Whether the store has keys and is not unlocked.
    pub fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// Number of key records in use. A stale record, which opens nothing, counts too.
    pub fn key_count(&self) -> usize {
        self.state
            .records
            .iter()
            .filter(|r| r.is_occupied())
            .count()
    }

    /// Length of the device in bytes, at most 16 TiB.
    pub fn device_size(&self) -> u64 {
        self.disk.geometry.len
    }

    /// Length in bytes of all free blocks.
    pub fn free_size(&self) -> u64 {
        self.free_gaps()
            .map(|gap| u64::from(gap.blocks) * u64::from(BLOCK_SIZE))
            .sum()
    }

    /// Length in bytes of the longest run of free blocks. A file that is added can be as large, except
    /// for the block that the new file table needs.
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

    /// The sizes and protection of a file or table. Needs no key.
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

    /// Whether a file or table exists.
    pub fn is_allocated(&self, id: FileId) -> bool {
        self.file_info(id).is_ok()
    }

    /// All files and tables, ordered by id.
    pub fn files(&self) -> impl Iterator<Item = (FileId, FileInfo)> + '_ {
        (0..64).filter_map(|id| Some((FileId(id), self.file_info(FileId(id)).ok()?)))
    }

    /// The number of the first block of a file or table and its number of blocks, according to its entry.
    pub fn file_location(&self, id: FileId) -> Result<(u32, u32), Error> {
        if id == FileId::FILE_TABLE {
            return Ok((self.state.table, 1));
        }
        let file = self.state.file(id).ok_or(Error::NotAllocated(id))?;
        Ok((file.extent.start, file.extent.blocks))
    }

    /// Reserves space for a file of `len` bytes, until the store is closed: it can be written and replaced whatever
    /// becomes of the rest of the store, and of the host's disk.
    ///
    /// The space of the whole device is allocated (see [`BlockDevice::allocate`]), and blocks for the file, for its
    /// successor, and for the tables are kept free. A commit that would take them fails with [`Error::Reserved`]. Only files of one block are sure to find their blocks in one piece.
    ///
    /// If this fails because blocks or the host's space are missing, those blocks that are free are kept.
    pub fn reserve(&mut self, id: FileId, len: u64) -> Result<(), Error> {
        self.check_writable()?;
        let blocks = blocks_for(user_file(id)?, len)?;
        self.reserved.retain(|(other, _)| *other != id);
        self.reserved.push((id, blocks));
        self.disk.allocate()?;
        let needed = self.reserved_blocks(&self.state) + self.state.table_blocks();
        if self.free_size() < needed * u64::from(BLOCK_SIZE) {
            return Err(Error::NoSpace { id, blocks });
        }
        Ok(())
    }
}

pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) previous: Option<Vec<Extent>>,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn read_table(disk: &mut Disk, block: u32) -> Result<FileTable, Error> {
    let mut table = FileTable::new_zeroed();
    disk.read(byte_of(block), table.as_mut_bytes())?;
    Ok(table)
}

/// Reads the headers and the active file table.
fn load(disk: &mut Disk, policy: HeaderPolicy) -> Result<Loaded, Error> {
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

    // The blocks that the other header refers to are kept if its table can be read.
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
