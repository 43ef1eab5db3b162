//! The manifest: JSON whose last member is the digest of everything before it.

use crate::Digest;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

/// The version of the format. A reader refuses newer ones.
pub const VERSION: u32 = 1;

/// The manifest's file.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file with the state of the units.
pub const STATE_FILE: &str = "state.bin";
/// The file with guest RAM.
pub const MEMORY_FILE: &str = "memory.bin";
/// The file with the digests of guest RAM.
pub const INDEX_FILE: &str = "memory.idx";
/// The file with the VMGS store.
pub const VMGS_FILE: &str = "vmgs.bin";

/// The longest manifest that is read, in bytes.
pub const MAX_MANIFEST_LEN: u64 = 4 << 20;
/// The longest state of units that is read, in bytes.
pub const MAX_STATE_LEN: u64 = 256 << 20;

const FORMAT: &str = "openvmm-snapshot";
/// What is between the content and its digest, and after that. So in all versions of the format.
const BEFORE_DIGEST: &str = ",\n  \"digest\": \"";
const AFTER_DIGEST: &str = "\"\n}\n";
const DIGEST_LEN: usize = 32;

/// What a snapshot is of, and what it consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `openvmm-snapshot`.
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// The snapshot's ID, in hexadecimal: 16 random bytes.
    pub id: String,
    /// The program that wrote it, and its version.
    pub product: String,
    /// The architecture of the guest's processors.
    pub architecture: String,
    /// When it was written: RFC 3339, UTC.
    pub created: String,
    /// The configuration of the machine, for people.
    pub machine: Value,
    /// The configuration of the machine as its owner encodes it, in base64.
    pub config: String,
    /// The processors that the guest was told of, and the host it ran on.
    pub processor: ProcessorRecord,
    /// Guest RAM.
    pub memory: MemoryRecord,
    /// The machine's disks, which are not part of the snapshot.
    pub disks: Vec<DiskRecord>,
    /// The units whose state is saved.
    pub units: Vec<UnitRecord>,
    /// All other files.
    pub files: Vec<FileRecord>,
}

/// The processors that the guest was told of, and the host it ran on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessorRecord {
    /// CPUID leaf 0: such as `GenuineIntel`.
    pub vendor: String,
    /// CPUID leaves 0x80000002 to 0x80000004.
    pub model: String,
    /// The frequency of the time stamp counter, if it is known.
    pub tsc_khz: Option<u32>,
    /// How the host virtualizes: `vmx`, `svm`, `software` or `unknown`.
    pub virtualization: String,
    /// The boot processor's CPUID table: the features that the guest may use.
    pub cpuid: Vec<CpuidRecord>,
}

/// An entry of a CPUID table.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidRecord {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input, if it matters.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX and EDX.
    pub registers: [u32; 4],
}

/// Guest RAM.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRecord {
    /// Its size in bytes.
    pub size: u64,
    /// How much of it is stored, in bytes: pages of zeros are not.
    pub stored: u64,
    /// The size of the chunks that have a digest, in bytes.
    pub chunk_size: u32,
    /// The number of chunks.
    pub chunks: u64,
}

/// A disk, which is not part of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// The name of its device.
    pub device: String,
    /// Its file.
    pub path: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// The size of a sector in bytes.
    pub sector: u32,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// The serial number that the guest sees.
    pub serial: String,
    /// What is on it, as far as that can be told from its start.
    pub content: Option<String>,
    /// When its file was last written, in nanoseconds since 1970.
    pub modified: Option<String>,
}

/// A unit whose state is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Its name.
    pub name: String,
    /// The length of its state in bytes.
    pub size: u64,
}

/// A file of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest; guest RAM has an index instead.
    pub digest: Option<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is too long.
    #[error("it has {len} bytes; the limit is {MAX_MANIFEST_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// It does not end with its digest, or that is another.
    #[error("it is damaged: it does not end with the digest of its content")]
    Damaged,
    /// It is not JSON, or lacks something.
    #[error("it lacks something, or has something else in its place")]
    Json(#[from] serde_json::Error),
    /// It is something else.
    #[error("it is not of a snapshot, but says that it is `{format}`")]
    OtherFormat {
        /// What it says it is.
        format: String,
    },
    /// The format is newer.
    #[error(
        "its format has version {version}, and this program reads versions up to {VERSION}; use a newer program"
    )]
    Newer {
        /// The version.
        version: u64,
    },
    /// The processors are of another architecture.
    #[error(
        "the saved machine's processors are {found}, and this host's {}",
        std::env::consts::ARCH
    )]
    OtherArchitecture {
        /// The saved machine's.
        found: String,
    },
    /// A value cannot be.
    #[error("it has an impossible value: {0}")]
    Invalid(&'static str),
}

/// What is read before the version is known to be one that can be read.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

impl Manifest {
    pub(crate) fn format() -> String {
        FORMAT.to_owned()
    }

    /// The manifest as a file.
    pub fn seal(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        let body = json.strip_suffix("\n}").unwrap_or(&json);
        let content = format!("{body}{BEFORE_DIGEST}");
        let digest = Digest::of(content.as_bytes());
        Ok(format!("{content}{digest}{AFTER_DIGEST}"))
    }

    /// Reads the file.
    pub fn unseal(bytes: &[u8]) -> Result<Self, ManifestError> {
        let len = bytes.len() as u64;
        if len > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong { len });
        }
        let sealed = std::str::from_utf8(bytes).ok();
        let sealed = sealed.and_then(|text| text.strip_suffix(AFTER_DIGEST));
        let parts =
            sealed.and_then(|text| text.split_at_checked(text.len().checked_sub(DIGEST_LEN)?));
        let (content, digest) = parts.ok_or(ManifestError::Damaged)?;
        let known = Digest::parse(digest) == Some(Digest::of(content.as_bytes()));
        if !known || !content.ends_with(BEFORE_DIGEST) {
            return Err(ManifestError::Damaged);
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.format != FORMAT {
            return Err(ManifestError::OtherFormat {
                format: head.format.chars().take(64).collect(),
            });
        }
        if head.version > VERSION.into() {
            return Err(ManifestError::Newer {
                version: head.version,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.architecture != std::env::consts::ARCH {
            return Err(ManifestError::OtherArchitecture {
                found: self.architecture.chars().take(64).collect(),
            });
        }
        let invalid = |what| Err(ManifestError::Invalid(what));
        if self.id_bytes().is_none() {
            return invalid("`id` is not 16 bytes in hexadecimal");
        }
        let memory = &self.memory;
        if !memory.chunk_size.is_power_of_two()
            || memory.chunk_size < 4096
            || memory.size == 0
            || !memory.size.is_multiple_of(4096)
            || memory.size.checked_add(crate::memory::FOOTER).is_none()
            || memory.size.div_ceil(memory.chunk_size.into()) != memory.chunks
        {
            return invalid("`memory` is no RAM that is divided into chunks");
        }
        for name in [STATE_FILE, MEMORY_FILE, INDEX_FILE] {
            let of_name = self.files.iter().filter(|file| file.name == name);
            if of_name.count() != 1 {
                return invalid("`files` has a file twice, or lacks one");
            }
        }
        for file in &self.files {
            let limit = match file.name.as_str() {
                STATE_FILE => MAX_STATE_LEN,
                INDEX_FILE => crate::MAX_INDEX_LEN,
                MEMORY_FILE if file.size == memory.size + crate::memory::FOOTER => u64::MAX,
                MEMORY_FILE => return invalid("`memory.bin` has another size than `memory`"),
                VMGS_FILE => u64::MAX,
                _ => return invalid("`files` has a file of another name"),
            };
            if file.size > limit {
                return invalid("a file in `files` is too long");
            }
            let digest = file.digest.as_deref().map(Digest::parse);
            if file.name != MEMORY_FILE && !matches!(digest, Some(Some(_))) {
                return invalid("a file in `files` has no digest");
            }
        }
        Ok(())
    }

    /// [`Manifest::id`] as bytes.
    pub fn id_bytes(&self) -> Option<[u8; 16]> {
        Digest::parse(&self.id).map(|id| id.0)
    }

    /// The encoded configuration; `None` if it is not base64.
    pub fn config_bytes(&self) -> Option<Vec<u8>> {
        data_encoding::BASE64.decode(self.config.as_bytes()).ok()
    }

    /// The file of this name.
    pub fn file(&self, name: &str) -> Option<&FileRecord> {
        self.files.iter().find(|file| file.name == name)
    }
}
