//! Parses `SOURCE[,KEY[=VALUE]]...`.

use disk_backend::DiskAccess;
use disk_backend::SECTOR;
use disk_file::Engine;
use disk_file::Format;
use minicbor::Decode;
use minicbor::Encode;
use std::path::PathBuf;
use std::str::FromStr;
use virtio_blk::BlkConfig;
use virtio_blk::BlkConfigError;

/// The source of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum DiskSource {
    /// A file or block device.
    #[n(0)]
    #[cbor(map)]
    File(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
    /// Memory, zero at first.
    #[n(1)]
    #[cbor(map)]
    Memory {
        /// The size in bytes.
        #[n(1)]
        size: u64,
    },
    /// A file that is only read, with changes kept in memory.
    #[n(2)]
    #[cbor(map)]
    Overlay(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
}

/// A disk and how it is presented to the guest.
///
/// As text: a source, `file:PATH`, `mem:SIZE` or `memdiff:file:PATH`, followed by comma-separated options: `ro`,
/// `serial=TEXT`, `queues=N`, and for files `format=raw|vhd` and `aio=io_uring|threads`. A comma in a path is doubled.
/// Sizes are in bytes, or have a suffix K, M, G or T (powers of 1024).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DiskSpec {
    /// The source.
    #[n(1)]
    pub source: DiskSource,
    /// Whether the guest can write it.
    #[n(2)]
    pub access: DiskAccess,
    /// The serial number, if one is configured.
    #[n(3)]
    pub serial: Option<String>,
    /// The number of queues, or none if the VMM chooses.
    #[n(4)]
    pub queues: Option<u16>,
    /// The format of the file.
    #[n(5)]
    pub format: Format,
    /// How I/O on the file is made asynchronous.
    #[n(6)]
    pub engine: Engine,
    /// The logical block size in bytes, or none for that of the source.
    #[n(7)]
    pub sector: Option<u32>,
}

/// Why a text does not describe a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The kind of source is unknown.
    #[error("{0:?} is not a disk; use file:PATH, mem:SIZE or memdiff:file:PATH")]
    Source(String),
    /// The source has no path.
    #[error("{0:?} lacks a path")]
    NoPath(String),
    /// The size is invalid.
    #[error(
        "{0:?} is not a disk size; use a positive multiple of 512 in bytes, or with a suffix K, M, G or T"
    )]
    Size(String),
    /// The option is unknown or has an invalid value.
    #[error(
        "a disk has no option {0:?}; there are ro, serial=TEXT, queues=N, format=raw|vhd and aio=io_uring|threads \
         (double a comma in a path)"
    )]
    Option(String),
    /// An option occurs more than once.
    #[error("the disk option {0} is given twice")]
    Twice(String),
    /// The option does not apply to the source.
    #[error("the disk option {0} is for files only")]
    FilesOnly(String),
    /// An overlay is read-only.
    #[error("memdiff: keeps changes in memory, and a read-only disk has none; use file:PATH,ro")]
    ReadOnlyOverlay,
    /// The number of queues is not a number.
    #[error("{0:?} is not a number of queues")]
    Queues(String),
    /// The device refuses the values.
    #[error(transparent)]
    Config(#[from] BlkConfigError),
}

/// Splits at single commas. A double comma is a comma in the text.
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
    match path {
        "" => Err(ParseError::NoPath(text.into())),
        path => Ok(path.into()),
    }
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
        .ok_or_else(|| ParseError::Size(text.into()))
}

fn source(text: &str) -> Result<DiskSource, ParseError> {
    if let Some(file) = text.strip_prefix("memdiff:file:") {
        Ok(DiskSource::Overlay(path(file, text)?))
    } else if let Some(file) = text.strip_prefix("file:") {
        Ok(DiskSource::File(path(file, text)?))
    } else if let Some(text) = text.strip_prefix("mem:") {
        Ok(DiskSource::Memory { size: size(text)? })
    } else {
        Err(ParseError::Source(text.into()))
    }
}

impl FromStr for DiskSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = split(text).into_iter();
        let mut spec = Self {
            source: source(&parts.next().unwrap_or_default())?,
            access: DiskAccess::ReadWrite,
            serial: None,
            queues: None,
            format: Format::Auto,
            engine: Engine::Auto,
            sector: None,
        };
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (&*part, None),
            };
            if seen.iter().any(|seen| seen == key) {
                return Err(ParseError::Twice(key.into()));
            }
            seen.push(key.to_owned());
            spec.set(key, value, &part)?;
        }
        // Checks the values of `serial` and `queues`.
        spec.blk_config(1)?;
        if matches!(spec.source, DiskSource::Overlay(_)) && spec.access == DiskAccess::ReadOnly {
            return Err(ParseError::ReadOnlyOverlay);
        }
        if matches!(spec.source, DiskSource::Memory { .. })
            && let Some(key) = seen.into_iter().find(|key| key == "format" || key == "aio")
        {
            return Err(ParseError::FilesOnly(key));
        }
        Ok(spec)
    }
}

impl DiskSpec {
    fn set(&mut self, key: &str, value: Option<&str>, text: &str) -> Result<(), ParseError> {
        match (key, value) {
            ("ro", None) => self.access = DiskAccess::ReadOnly,
            ("serial", Some(serial)) => self.serial = Some(serial.into()),
            ("queues", Some(number)) => {
                let queues = number.parse();
                self.queues = Some(queues.map_err(|_| ParseError::Queues(number.into()))?);
            }
            ("format", Some("raw")) => self.format = Format::Raw,
            ("format", Some("vhd")) => self.format = Format::Vhd,
            ("sector", Some("512")) => self.sector = Some(512),
            ("sector", Some("4096")) => self.sector = Some(4096),
            ("aio", Some("io_uring")) => self.engine = Engine::IoUring,
            ("aio", Some("threads")) => self.engine = Engine::Threads,
            _ => return Err(ParseError::Option(text.into())),
        }
        Ok(())
    }

    /// The configuration of the virtio block device, with `default_queues` queues if none are configured.
    pub fn blk_config(&self, default_queues: u16) -> Result<BlkConfig, BlkConfigError> {
        let config = BlkConfig::default().with_queues(self.queues.unwrap_or(default_queues))?;
        match &self.serial {
            Some(serial) => config.with_serial(serial),
            None => Ok(config),
        }
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
    fn valid_texts_are_parsed() {
        let spec = parse("file:/a/b.img");
        assert_eq!(spec.source, DiskSource::File("/a/b.img".into()));
        assert_eq!(spec.access, DiskAccess::ReadWrite);
        let spec = parse("file:a=b:c,,d,ro,serial=x=1,queues=4,format=raw,aio=threads");
        assert_eq!(spec.source, DiskSource::File("a=b:c,d".into()));
        assert_eq!(spec.access, DiskAccess::ReadOnly);
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
        assert_eq!(spec.source, DiskSource::Overlay("/x".into()));
    }

    #[test]
    fn invalid_texts_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a disk"),
            ("/a/b.img", "file:PATH"),
            ("file:", "lacks a path"),
            ("memdiff:file:", "lacks a path"),
            ("memdiff:mem:1G", "not a disk"),
            ("mem:", "not a disk size"),
            ("mem:0", "not a disk size"),
            ("mem:513", "not a disk size"),
            ("mem:1X", "not a disk size"),
            ("mem:-1", "not a disk size"),
            ("mem:99999999T", "not a disk size"),
            ("mem:é", "not a disk size"),
            ("file:x,", "no option"),
            ("file:x,rw", "no option"),
            ("file:x,ro=1", "no option"),
            ("file:x,format=qcow2", "no option"),
            ("file:x,ro,ro", "twice"),
            ("file:x,queues=0", "1 to 64"),
            ("file:x,queues=-1", "not a number"),
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
        fn arbitrary_texts_do_not_panic(
            text in "(file:|mem:|memdiff:file:)?[a-zA-Z0-9é,=:/]{0,12}(,ro|,serial=[a-z,]{0,3}|,queues=[0-9]{1,2}|,aio=threads){0,3}"
        ) {
            let _ = text.parse::<DiskSpec>();
        }
    }
}
