//! Parses `SOURCE[,KEY[=VALUE]]...`.

use disk_backend::DiskAccess;
use disk_backend::SECTOR;
use disk_file::Caching;
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
/// As text: a source, `file:PATH` or just `PATH`, `mem:SIZE`, or `memdiff:` and a file, followed by comma-separated options:
/// `ro`, `serial=TEXT`, `queues=N`, `sector=512|4096`, and for files `format=raw|vhd|qcow2` and `aio=io_uring|threads`. A
/// path may be followed by `;create=SIZE` and `;direct`. A comma or semicolon in a path is doubled. Sizes are in bytes, or have a suffix
/// K, M, G or T (powers of 1024).
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
    /// The size in bytes to create the file with if it does not exist, or none not to create it.
    #[n(8)]
    pub create: Option<u64>,
    /// Whether I/O on the file goes through the host's page cache.
    #[n(9)]
    pub caching: Caching,
}

/// Why a text does not describe a disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The kind of source is unknown.
    #[error("{0:?} is not a disk; use file:PATH, mem:SIZE or memdiff:file:PATH")]
    Source(String),
    /// The kind of source is one of the reference's that is not supported.
    #[error(
        "disks of the kind {0}: are not supported; use file:PATH, mem:SIZE or memdiff:file:PATH"
    )]
    Kind(String),
    /// What follows a semicolon in a path is unknown.
    #[error(
        "a disk file has no option {0:?}; there are ;create=SIZE and ;direct (double a semicolon in a path)"
    )]
    FileOption(String),
    /// A file that is created is raw.
    #[error(";create=SIZE makes a raw file; `qemu-img create` makes others")]
    CreateFormat,
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
        "a disk has no option {0:?}; there are ro, serial=TEXT, queues=N, sector=512|4096, format=raw|vhd|qcow2, \
         aio=io_uring|threads and slot=DEV[.FN] (double a comma in a path)"
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

/// Splits at single separators. A double separator is one in the text.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == separator && characters.next_if_eq(&separator).is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// What follows a path.
#[derive(Default)]
struct PathOptions {
    create: Option<u64>,
    caching: Caching,
}

/// Reads `PATH[;create=SIZE][;direct]`.
fn file(text: &str) -> Result<(PathBuf, PathOptions), ParseError> {
    let mut parts = split(text, ';').into_iter();
    let path = parts.next().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| ParseError::NoPath(text.into()))?;
    let mut options = PathOptions::default();
    for part in parts {
        match part.split_once('=') {
            Some(("create", _)) if options.create.is_some() => {
                return Err(ParseError::Twice("create".into()));
            }
            Some(("create", value)) => options.create = Some(size(value)?),
            None if part == "direct" && options.caching == Caching::Direct => {
                return Err(ParseError::Twice("direct".into()));
            }
            None if part == "direct" => options.caching = Caching::Direct,
            _ => return Err(ParseError::FileOption(part)),
        }
    }
    Ok((path.into(), options))
}

fn size(text: &str) -> Result<u64, ParseError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" | "k" | "KB" | "KiB" => Some(10),
        "M" | "m" | "MB" | "MiB" => Some(20),
        "G" | "g" | "GB" | "GiB" => Some(30),
        "T" | "t" | "TB" | "TiB" => Some(40),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .filter(|size| *size != 0 && size.is_multiple_of(SECTOR))
        .ok_or_else(|| ParseError::Size(text.into()))
}

/// Reads a source.
fn source(text: &str) -> Result<(DiskSource, PathOptions), ParseError> {
    let (kind, rest) = text.split_once(':').unwrap_or(("file", text));
    match kind {
        "mem" => {
            let size = size(rest)?;
            Ok((DiskSource::Memory { size }, PathOptions::default()))
        }
        "memdiff" => match source(rest)? {
            (DiskSource::File(path), options) => Ok((DiskSource::Overlay(path), options)),
            _ => Err(ParseError::Source(text.into())),
        },
        "file" => {
            let (path, options) = file(rest)?;
            Ok((DiskSource::File(path), options))
        }
        "sql" | "sqldiff" | "autocache" | "blob" | "crypt" | "prwrap" | "delay" => {
            Err(ParseError::Kind(kind.into()))
        }
        // A colon in a path.
        _ if text.starts_with('/') => {
            let (path, options) = file(text)?;
            Ok((DiskSource::File(path), options))
        }
        _ => Err(ParseError::Source(text.into())),
    }
}

impl FromStr for DiskSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = split(text, ',').into_iter();
        let (source, options) = source(&parts.next().unwrap_or_default())?;
        let mut spec = Self {
            source,
            access: DiskAccess::ReadWrite,
            serial: None,
            queues: None,
            format: Format::Auto,
            engine: Engine::Auto,
            sector: None,
            create: options.create,
            caching: options.caching,
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
        if spec.create.is_some() && matches!(spec.format, Format::Vhd | Format::Qcow2) {
            return Err(ParseError::CreateFormat);
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
            ("format", Some("qcow2")) => self.format = Format::Qcow2,
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
        for text in ["memdiff:file:/x", "memdiff:/x"] {
            assert_eq!(parse(text).source, DiskSource::Overlay("/x".into()));
        }
        for (text, path) in [
            ("disk.img", "disk.img"),
            ("./a,ro", "./a"),
            ("/a:b,,c;;d", "/a:b,c;d"),
            ("file:mem:1G", "mem:1G"),
        ] {
            assert_eq!(parse(text).source, DiskSource::File(path.into()));
        }
        for text in [
            "file:/x;create=1GB,ro",
            "/x;create=1G",
            "memdiff:/x;create=1G",
        ] {
            assert_eq!(parse(text).create, Some(1 << 30), "{text}");
        }
        assert_eq!(parse("/x").create, None);
        assert_eq!(parse("/x").caching, Caching::PageCache);
        for text in [
            "file:/x;direct",
            "memdiff:/x;direct,queues=2",
            "/x;create=1M;direct",
        ] {
            assert_eq!(parse(text).caching, Caching::Direct, "{text}");
        }
        assert_eq!(parse("mem:1G,sector=4096").sector, Some(4096));
        assert_eq!(parse("/x,format=qcow2").format, Format::Qcow2);
    }

    #[test]
    fn invalid_texts_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "lacks a path"),
            ("a:b", "file:PATH"),
            ("memdiff:memdiff:/x", "not a disk"),
            ("sql:x", "sql: are not supported"),
            ("crypt:xts-aes-256:key:file:x", "crypt: are not supported"),
            ("memdiff:blob:flat:http://x", "blob: are not supported"),
            ("file:x;direct;direct", "twice"),
            ("file:x;direct=1", "no option"),
            ("file:x;create=1", "not a disk size"),
            ("file:x;create", "no option"),
            ("file:x;create=1K;create=1K", "twice"),
            ("file:x;y", "double a semicolon"),
            ("file:x;create=1M,format=qcow2", "makes a raw file"),
            ("file:x,dvd", "no option \"dvd\""),
            ("file:x,nothing", "slot=DEV[.FN]"),
            ("file:x,sector=1024", "sector=512|4096"),
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
            ("file:x,format=vmdk", "no option"),
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
            text in "(file:|mem:|memdiff:file:|memdiff:)?[a-zA-Z0-9é,;=:/]{0,12}(;create=[0-9A-Z]{0,3}|;direct)?(,ro|,serial=[a-z,]{0,3}|,queues=[0-9]{1,2}|,aio=threads){0,3}"
        ) {
            let _ = text.parse::<DiskSpec>();
        }
    }
}
