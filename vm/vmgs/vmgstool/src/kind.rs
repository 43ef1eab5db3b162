//! Refusing kinds of files that cannot be used, before opening them waits for another process.

use anyhow::bail;
use host_file::Allowed;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The file system of pipes without a name (`PIPEFS_MAGIC`).
const PIPE_FILE_SYSTEM: i64 = 0x5049_5045;

/// Fails if a store cannot be at `path`. A missing file is left to opening it.
pub(crate) fn check_store(path: &Path) -> anyhow::Result<()> {
    match kind(path) {
        Some(kind) if !Allowed::RegularOrBlock.allows(kind) => bail!(
            "{} is {}; a store is in a regular file or on a block device",
            path.display(),
            name(kind)
        ),
        _ => Ok(()),
    }
}

/// Fails if `path` is not for reading or writing a stream of bytes: a directory, a socket, or a named pipe, which would
/// wait for another process to open it. The pipes of a shell's `|` and `<(...)` have no name and are accepted.
pub(crate) fn check_stream(path: &Path) -> anyhow::Result<()> {
    let refused = match kind(path) {
        Some(kind) if kind.is_fifo() && is_unnamed(path) => None,
        Some(kind) if kind.is_dir() || kind.is_socket() || kind.is_fifo() => Some(kind),
        _ => None,
    };
    match refused {
        Some(kind) => bail!("{} is {}, not a file", path.display(), name(kind)),
        None => Ok(()),
    }
}

fn kind(path: &Path) -> Option<FileType> {
    Some(std::fs::metadata(path).ok()?.file_type())
}

/// Whether this pipe has no name of its own: `path` is one such as `/dev/stdin` or `/proc/self/fd/3`.
fn is_unnamed(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| system.f_type == PIPE_FILE_SYSTEM)
}

fn name(kind: FileType) -> &'static str {
    // It may have no name.
    match kind.is_fifo() {
        true => "a pipe",
        false => host_file::kind_name(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType as NodeType;
    use rustix::fs::Mode;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    #[test]
    fn each_kind_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), b"").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            NodeType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let unnamed = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        // What each may be used for: as a store, as a stream.
        for (path, store, stream, what) in [
            (at("file"), true, true, ""),
            (at("missing"), true, true, ""),
            (
                PathBuf::from("/dev/null"),
                false,
                true,
                "a character device",
            ),
            (unnamed, false, true, "a pipe"),
            (at("pipe"), false, false, "a pipe"),
            (at("socket"), false, false, "a socket"),
            (dir.path().into(), false, false, "a directory"),
        ] {
            for (result, allowed) in [(check_store(&path), store), (check_stream(&path), stream)] {
                match result {
                    Ok(()) => assert!(allowed, "{path:?}"),
                    Err(error) => {
                        assert!(!allowed, "{path:?}");
                        assert!(error.to_string().contains(what), "{error}");
                    }
                }
            }
        }
    }
}
