//! The header of a qcow2 image (the format's specification is `docs/interop/qcow2.rst` of QEMU): what must be known, and
//! refused by name, before the image is used.

use disk_backend::SECTOR;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use zerocopy::FromBytes;
use zerocopy::FromZeros as _;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::big_endian::U32;
use zerocopy::big_endian::U64;

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The cluster sizes that QEMU supports are 2 to the power of these bytes.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The most entries of the L1 table, 8 bytes each; QEMU's limit too.
const MAX_L1_ENTRIES: u64 = 4 << 20;
/// The most bytes of the refcount table; QEMU's limit too.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// The longest name of a backing file.
const MAX_NAME: u32 = 1023;
/// The header extension with the format of the backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Why a qcow2 image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It cannot be read or opened.
    #[error("failed to {operation}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The bytes are not a qcow2 image.
    #[error("it has no qcow2 header")]
    NoHeader,
    /// A field of the header has an impossible value.
    #[error("its header is corrupt: {field} is {value:#x}")]
    Corrupt {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// It uses something that is not supported.
    #[error("{what} not supported{advice}")]
    Unsupported {
        /// What it uses, with a verb.
        what: String,
        /// What the user can do, or nothing.
        advice: &'static str,
    },
    /// It was not closed or is damaged.
    #[error("it is marked {state}; `qemu-img check -r all` repairs it")]
    NeedsRepair {
        /// The mark.
        state: &'static str,
    },
    /// Its backing file cannot be used.
    #[error("its backing file {name:?} cannot be used: {reason}")]
    Backing {
        /// The name in the header.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// Its backing file cannot be opened.
    #[error("failed to open its backing file {name:?}")]
    OpenBacking {
        /// The name in the header.
        name: String,
        /// Why.
        #[source]
        source: Box<crate::FileDiskError>,
    },
}

/// The header of version 3. Version 2 ends before `incompatible`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_size: U32,
    l1_table_offset: U64,
    refcount_table_offset: U64,
    refcount_table_clusters: U32,
    nb_snapshots: U32,
    snapshots_offset: U64,
    incompatible: U64,
    compatible: U64,
    autoclear: U64,
    refcount_order: U32,
    header_length: U32,
}

const V2_LEN: usize = 72;
const _: () = assert!(size_of::<Layout>() == 104);

/// A header extension, followed by `len` bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Extension {
    kind: U32,
    len: U32,
}

/// The file that has what an image does not have itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    /// Its name, relative to the image.
    pub(crate) name: String,
    /// Its format, if the image says it.
    pub(crate) format: Option<String>,
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// 2 or 3.
    pub(crate) version: u32,
    /// The size of the disk in bytes.
    pub(crate) size: u64,
    /// The size of a cluster in bytes.
    pub(crate) cluster: u32,
    pub(crate) backing: Option<Backing>,
}

fn corrupt(field: &'static str, value: impl Into<u64>) -> Qcow2Error {
    let value = value.into();
    Qcow2Error::Corrupt { field, value }
}

impl Header {
    /// Reads and checks the header of the image in `file`.
    pub(crate) fn read(file: &File) -> Result<Self, Qcow2Error> {
        let mut layout = Layout::new_zeroed();
        read_at(file, layout.as_mut_bytes(), 0)?;
        let version = layout.version.get();
        if layout.magic != MAGIC || !matches!(version, 2 | 3) {
            return Err(Qcow2Error::NoHeader);
        }
        if version == 2 {
            layout.as_mut_bytes()[V2_LEN..].fill(0);
            layout.refcount_order = 4.into();
            layout.header_length = (V2_LEN as u32).into();
        }
        layout.check()?;
        layout.check_refcount_table(file)?;
        let cluster = 1 << layout.cluster_bits.get();
        let backing = match layout.backing_file_offset.get() {
            0 => None,
            _ => Some(layout.backing(file, cluster)?),
        };
        Ok(Self {
            version,
            size: layout.size.get(),
            cluster,
            backing,
        })
    }
}

impl Layout {
    fn check(&self) -> Result<(), Qcow2Error> {
        let bits = self.cluster_bits.get();
        if !CLUSTER_BITS.contains(&bits) {
            return Err(corrupt("cluster_bits", bits));
        }
        if self.refcount_order.get() > 6 {
            return Err(corrupt("refcount_order", self.refcount_order));
        }
        let header_length = self.header_length.get();
        if u64::from(header_length) > 1 << bits || !header_length.is_multiple_of(8) {
            return Err(corrupt("header_length", header_length));
        }
        self.check_features()?;
        let unsupported = |what: &str, advice| {
            let what = what.into();
            Err(Qcow2Error::Unsupported { what, advice })
        };
        match self.crypt_method.get() {
            0 => {}
            1 => return unsupported("it is encrypted (AES), which is", ""),
            2 => return unsupported("it is encrypted (LUKS), which is", ""),
            method => return Err(corrupt("crypt_method", method)),
        }
        if self.nb_snapshots.get() != 0 {
            return unsupported(
                "it has internal snapshots, which are",
                "; `qemu-img snapshot -d` deletes them, and `qemu-img convert` makes an image without",
            );
        }
        let size = self.size.get();
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(corrupt("size", size));
        }
        // An L2 table is a cluster of entries of 8 bytes.
        let per_l1_entry = 1 << (2 * bits - 3);
        let needed = size.div_ceil(per_l1_entry);
        if needed > MAX_L1_ENTRIES {
            return Err(corrupt("size", size));
        }
        let entries = u64::from(self.l1_size.get());
        if entries > MAX_L1_ENTRIES || entries < needed {
            return Err(corrupt("l1_size", entries));
        }
        let clusters = u64::from(self.refcount_table_clusters.get());
        if clusters == 0 || clusters > MAX_REFCOUNT_TABLE >> bits {
            return Err(corrupt("refcount_table_clusters", clusters));
        }
        Ok(())
    }

    fn check_features(&self) -> Result<(), Qcow2Error> {
        let features = self.incompatible.get();
        if features & 1 != 0 {
            return Err(Qcow2Error::NeedsRepair {
                state: "dirty (it was not closed)",
            });
        }
        if features & 2 != 0 {
            return Err(Qcow2Error::NeedsRepair { state: "corrupt" });
        }
        let what = match features.trailing_zeros() {
            64 => return Ok(()),
            2 => "it has an external data file, which is".into(),
            3 => "it is compressed by another method than zlib, which is".into(),
            4 => "it has subclusters (extended L2 entries), which are".into(),
            bit => format!("it needs the unknown feature {bit}, which is"),
        };
        Err(Qcow2Error::Unsupported {
            what,
            advice: "; `qemu-img convert -O qcow2` makes an image without",
        })
    }

    /// Checks that the entries of the refcount table that are used come first, and are at least one. Otherwise clusters
    /// would be allocated, without end, for the refcounts of others.
    fn check_refcount_table(&self, file: &File) -> Result<(), Qcow2Error> {
        let bits = self.cluster_bits.get();
        let mut table = vec![0; (self.refcount_table_clusters.get() as usize) << bits];
        let mut done = 0;
        // What is beyond the end of the file is zero.
        while done < table.len() {
            let at = self.refcount_table_offset.get().saturating_add(done as u64);
            match file.read_at(&mut table[done..], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let operation = "read its refcount table";
                    return Err(Qcow2Error::Io { operation, source });
                }
            }
        }
        let (entries, _) = table.as_chunks::<8>();
        let used = |entry: &[u8; 8]| *entry != [0; 8];
        let first_unused = entries.iter().position(|entry| !used(entry));
        match first_unused {
            Some(0) => Err(corrupt("the first refcount block's offset", 0u64)),
            Some(n) if entries[n..].iter().any(used) => {
                Err(corrupt("a refcount block's offset", 0u64))
            }
            _ => Ok(()),
        }
    }

    /// The name and the format of the backing file, which are in the first cluster.
    fn backing(&self, file: &File, cluster: u32) -> Result<Backing, Qcow2Error> {
        let (at, len) = (self.backing_file_offset.get(), self.backing_file_size.get());
        if len == 0 || len > MAX_NAME {
            return Err(corrupt("backing_file_size", len));
        }
        if at.saturating_add(len.into()) > cluster.into() {
            return Err(corrupt("backing_file_offset", at));
        }
        let mut name = vec![0; len as usize];
        read_at(file, &mut name, at)?;
        let name = String::from_utf8(name);
        let name = name.map_err(|_| corrupt("the name of the backing file", at))?;
        Ok(Backing {
            format: self.backing_format(file, cluster)?,
            name,
        })
    }

    fn backing_format(&self, file: &File, cluster: u32) -> Result<Option<String>, Qcow2Error> {
        let mut at = u64::from(self.header_length.get());
        loop {
            let mut extension = Extension::new_zeroed();
            let start = at + size_of::<Extension>() as u64;
            if start > cluster.into() {
                return Ok(None);
            }
            read_at(file, extension.as_mut_bytes(), at)?;
            let len = extension.len.get();
            if extension.kind.get() == 0 {
                return Ok(None);
            }
            if start + u64::from(len) > cluster.into() {
                return Err(corrupt("the length of a header extension", len));
            }
            if extension.kind.get() == BACKING_FORMAT {
                let mut format = vec![0; len as usize];
                read_at(file, &mut format, start)?;
                let format = String::from_utf8(format);
                return format
                    .map(Some)
                    .map_err(|_| corrupt("the format of the backing file", start));
            }
            at = start + u64::from(len).next_multiple_of(8);
        }
    }
}

/// Reads bytes that a valid image has.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Result<(), Qcow2Error> {
    file.read_exact_at(bytes, at)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Qcow2Error::NoHeader,
            _ => Qcow2Error::Io {
                operation: "read its header",
                source,
            },
        })
}
