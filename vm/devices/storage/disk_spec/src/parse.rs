//! `SOURCE[,KEY[=VALUE]]...`

use disk_backend::Access;
use disk_backend::SECTOR;
use disk_file::Engine;
use disk_file::Format;
use minicbor::Decode;
use minicbor::Encode;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use virtio_blk::BlkConfig;
use virtio_blk::BlkConfigError;

/// Where a disk's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum DiskSource {
    /// In a file or block device.
    #[n(0)]
    #[cbor(map)]
    File(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
    /// In memory; zero at first.
    #[n(1)]
    #[cbor(map)]
    Memory {
        /// The size in bytes.
        #[n(1)]
        size: u64,
    },
    /// In a file that is only read; changes are in memory.
    #[n(2)]
    #[cbor(map)]
    MemoryOver(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
}

/// A disk and how the guest sees it.
///
/// Written as a source, `file:PATH`, `mem:SIZE` or `memdiff:file:PATH`, and options behind commas: `ro`, `serial=TEXT`,
/// `queues=N`, and for files `format=raw|vhd` and `aio=io_uring|threads`. A comma in a path is doubled. Sizes are in bytes,
/// or with a suffix in K, M, G or T (powers of 1024).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DiskSpec {
    /// Where its bytes are.
    #[n(1)]
    pub source: DiskSource,
    /// Whether the guest can write it.
    #[n(2)]
    pub access: Access,
    /// The serial number the guest sees, if it is to have one.
    #[n(3)]
    pub serial: Option<String>,
    /// The number of queues; none if the VMM is to choose.
    #[n(4)]
    pub queues: Option<u16>,
    /// How the disk lies in its file.
    #[n(5)]
    pub format: Format,
    /// How the file's I/O is done.
    #[n(6)]
    pub engine: Engine,
}

/// Why a text describes no disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not one of the kinds of sources.
    #[error("{text:?} is no disk; say file:PATH, mem:SIZE or memdiff:file:PATH")]
    Source {
        /// The source as given.
        text: String,
    },
    /// A path is missing.
    #[error("a path is missing in {text:?}")]
    NoPath {
        /// The source as given.
        text: String,
    },
    /// Not the size of a disk.
    #[error(
        "{text:?} is no size of a disk; say a positive multiple of 512 in bytes, or in K, M, G or T"
    )]
    Size {
        /// The size as given.
        text: String,
    },
    /// An option that does not exist.
    #[error(
        "a disk has no option {text:?}; there are ro, serial=TEXT, queues=N, format=raw|vhd and aio=io_uring|threads \
         (a comma in a path is written twice)"
    )]
    Option {
        /// The option as given.
        text: String,
    },
    /// An option that is there twice.
    #[error("the disk option {key} is given twice")]
    Twice {
        /// Its name.
        key: String,
    },
    /// An option that makes no sense for the source.
    #[error("the disk option {key} is for files only")]
    FilesOnly {
        /// Its name.
        key: String,
    },
    /// What only makes sense for a disk that can be written.
    #[error("memdiff: keeps changes in memory, and with ro there are none; say file:PATH,ro")]
    NothingToKeep,
    /// A value that is no number.
    #[error("{text:?} is no number of queues")]
    NotANumber {
        /// The value as given.
        text: String,
    },
    /// Values that the device does not have.
    #[error(transparent)]
    Config(#[from] BlkConfigError),
}

/// Splits at single commas; two are one that belongs to the text.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn path(path: &str, text: &str) -> Result<PathBuf, ParseError> {
    if path.is_empty() {
        let text = text.to_owned();
        return Err(ParseError::NoPath { text });
    }
    Ok(path.into())
}

fn size(text: &str) -> Result<u64, ParseError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" | "k" | "KiB" => Some(10),
        "M" | "m" | "MiB" => Some(20),
        "G" | "g" | "GiB" => Some(30),
        "T" | "t" | "TiB" => Some(40),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .filter(|size| *size != 0 && size.is_multiple_of(SECTOR))
        .ok_or_else(|| ParseError::Size { text: text.into() })
}

fn source(text: &str) -> Result<DiskSource, ParseError> {
    if let Some(file) = text.strip_prefix("memdiff:file:") {
        Ok(DiskSource::MemoryOver(path(file, text)?))
    } else if let Some(file) = text.strip_prefix("file:") {
        Ok(DiskSource::File(path(file, text)?))
    } else if let Some(text) = text.strip_prefix("mem:") {
        let size = size(text)?;
        Ok(DiskSource::Memory { size })
    } else {
        Err(ParseError::Source { text: text.into() })
    }
}

impl FromStr for DiskSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = split(text).into_iter();
        let mut spec = Self {
            source: source(&parts.next().unwrap_or_default())?,
            access: Access::ReadWrite,
            serial: None,
            queues: None,
            format: Format::Auto,
            engine: Engine::Auto,
        };
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (&*part, None),
            };
            if seen.iter().any(|seen| seen == key) {
                return Err(ParseError::Twice { key: key.into() });
            }
            seen.push(key.to_owned());
            spec.set(key, value, &part)?;
        }
        // Checks the values.
        spec.blk_config(1)?;
        if matches!(spec.source, DiskSource::MemoryOver(_)) && spec.access == Access::ReadOnly {
            return Err(ParseError::NothingToKeep);
        }
        if matches!(spec.source, DiskSource::Memory { .. })
            && let Some(key) = seen.into_iter().find(|key| key == "format" || key == "aio")
        {
            return Err(ParseError::FilesOnly { key });
        }
        Ok(spec)
    }
}

impl DiskSpec {
    fn set(&mut self, key: &str, value: Option<&str>, text: &str) -> Result<(), ParseError> {
        match (key, value) {
            ("ro", None) => self.access = Access::ReadOnly,
            ("serial", Some(serial)) => self.serial = Some(serial.into()),
            ("queues", Some(number)) => {
                let queues = number.parse();
                self.queues = Some(queues.map_err(|_| ParseError::NotANumber {
                    text: number.into(),
                })?);
            }
            ("format", Some("raw")) => self.format = Format::Raw,
            ("format", Some("vhd")) => self.format = Format::Vhd,
            ("aio", Some("io_uring")) => self.engine = Engine::IoUring,
            ("aio", Some("threads")) => self.engine = Engine::Threads,
            _ => return Err(ParseError::Option { text: text.into() }),
        }
        Ok(())
    }

    /// How a virtio block device shows the disk, with `default_queues` queues unless the user chose.
    pub fn blk_config(&self, default_queues: u16) -> Result<BlkConfig, BlkConfigError> {
        let config = BlkConfig::default().with_queues(self.queues.unwrap_or(default_queues))?;
        match &self.serial {
            Some(serial) => config.with_serial(serial),
            None => Ok(config),
        }
    }
}

impl fmt::Display for DiskSpec {
    /// What [`FromStr`] would make this of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |path: &PathBuf| path.display().to_string().replace(',', ",,");
        match &self.source {
            DiskSource::File(path) => write!(f, "file:{}", escape(path))?,
            DiskSource::Memory { size } => write!(f, "mem:{size}")?,
            DiskSource::MemoryOver(path) => write!(f, "memdiff:file:{}", escape(path))?,
        }
        if self.access == Access::ReadOnly {
            f.write_str(",ro")?;
        }
        if let Some(serial) = &self.serial {
            write!(f, ",serial={}", serial.replace(',', ",,"))?;
        }
        if let Some(queues) = self.queues {
            write!(f, ",queues={queues}")?;
        }
        f.write_str(match self.format {
            Format::Auto => "",
            Format::Raw => ",format=raw",
            Format::Vhd => ",format=vhd",
        })?;
        f.write_str(match self.engine {
            Engine::Auto => "",
            Engine::IoUring => ",aio=io_uring",
            Engine::Threads => ",aio=threads",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> DiskSpec {
        text.parse().unwrap()
    }

    #[test]
    fn what_users_write_is_understood() {
        let spec = parse("file:/a/b.img");
        assert_eq!(spec.source, DiskSource::File("/a/b.img".into()));
        assert_eq!(spec.access, Access::ReadWrite);
        let spec = parse("file:a=b:c,,d,ro,serial=x=1,queues=4,format=raw,aio=threads");
        assert_eq!(spec.source, DiskSource::File("a=b:c,d".into()));
        assert_eq!(spec.access, Access::ReadOnly);
        assert_eq!(spec.serial.as_deref(), Some("x=1"));
        assert_eq!(spec.queues, Some(4));
        assert_eq!((spec.format, spec.engine), (Format::Raw, Engine::Threads));
        assert_eq!(spec.blk_config(2).unwrap().queues(), 4);
        assert_eq!(parse("mem:1G").blk_config(2).unwrap().queues(), 2);
        for (text, size) in [
            ("512", 512),
            ("1K", 1024),
            ("3M", 3 << 20),
            ("2TiB", 2 << 40),
        ] {
            let spec = parse(&format!("mem:{text}"));
            assert_eq!(spec.source, DiskSource::Memory { size });
        }
        let spec = parse("memdiff:file:/x");
        assert_eq!(spec.source, DiskSource::MemoryOver("/x".into()));
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "no disk"),
            ("/a/b.img", "file:PATH"),
            ("file:", "path is missing"),
            ("memdiff:file:", "path is missing"),
            ("memdiff:mem:1G", "no disk"),
            ("mem:", "no size"),
            ("mem:0", "no size"),
            ("mem:513", "no size"),
            ("mem:1X", "no size"),
            ("mem:-1", "no size"),
            ("mem:99999999T", "no size"),
            ("mem:é", "no size"),
            ("file:x,", "no option"),
            ("file:x,rw", "no option"),
            ("file:x,ro=1", "no option"),
            ("file:x,format=qcow2", "no option"),
            ("file:x,ro,ro", "twice"),
            ("file:x,queues=0", "1 to 64"),
            ("file:x,queues=-1", "no number"),
            ("file:x,serial=", "serial number"),
            ("mem:1G,format=raw", "files only"),
            ("memdiff:file:x,ro", "file:PATH,ro"),
        ] {
            let error = text.parse::<DiskSpec>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_printed_means_the_same(
            text in "(file:|mem:|memdiff:file:)?[a-zA-Z0-9é,=:/]{0,12}(,ro|,serial=[a-z,]{0,3}|,queues=[0-9]{1,2}|,aio=threads){0,3}"
        ) {
            if let Ok(spec) = text.parse::<DiskSpec>() {
                prop_assert_eq!(spec.to_string().parse::<DiskSpec>(), Ok(spec));
            }
        }
    }
}
