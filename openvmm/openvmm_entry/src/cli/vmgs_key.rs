//! The value of `--vmgs-key`: where the key of an encrypted VMGS store is. The key itself is never on the command line,
//! where everybody on the host could read it.

use host_file::Allowed;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use vmgs::Key;

/// Where the key of the VMGS store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// In a file.
    File(PathBuf),
    /// Behind a descriptor that openvmm inherits.
    Descriptor(u32),
}

impl FromStr for KeySource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fd", number)) => number
                .parse()
                .map(Self::Descriptor)
                .map_err(|_| "a file descriptor is a number"),
            _ => Err("expected file:PATH or fd:NUMBER"),
        }
    }
}

impl KeySource {
    /// Reads the key.
    pub(crate) fn read(&self) -> io::Result<Key> {
        let (path, file) = match self {
            Self::File(path) => (path.clone(), host_file::open_input(path, Allowed::Regular)),
            Self::Descriptor(number) => {
                let path = PathBuf::from(format!("/proc/self/fd/{number}"));
                let file = File::open(&path);
                (path, file)
            }
        };
        let key = file.and_then(|mut file| Key::read_from(&mut file));
        key.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", path.display()),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_key_is_read_from_a_file_and_from_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [7; 32]).unwrap();
        let source: KeySource = format!("file:{}", path.display()).parse().unwrap();
        assert!(source.read().unwrap() == Key::new([7; 32]));
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[8; 32]).unwrap();
        drop(writer);
        let source: KeySource = format!("fd:{}", reader.as_raw_fd()).parse().unwrap();
        assert!(source.read().unwrap() == Key::new([8; 32]));
        std::fs::write(&path, [7; 33]).unwrap();
        let error = KeySource::File(path.clone()).read().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot read {}: a key has exactly 32 bytes", path.display())
        );
    }

    #[test]
    fn a_named_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let error = KeySource::File(path).read().unwrap_err();
        assert!(error.to_string().contains("a named pipe"), "{error}");
    }

    #[test]
    fn what_is_no_place_of_a_key_is_refused() {
        for text in ["", "key", "file:", "fd:", "fd:-1", "fd:x", "7777777777"] {
            assert!(text.parse::<KeySource>().is_err(), "{text}");
        }
    }
}
