//! Reading input files of limited length.

use crate::kind;
use anyhow::Context;
use anyhow::bail;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens the file at `path`, or a pipe, but none that has a name.
pub(crate) fn open(path: &Path) -> anyhow::Result<File> {
    kind::check_stream(path)?;
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// Reads the file at `path`, which may have at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    read_open_file(open(path)?, path, limit)
}

/// Reads an open file, which may have at most `limit` bytes. `path` is for error messages.
pub(crate) fn read_open_file(file: File, path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > limit {
        bail!("{} has more than {limit} bytes", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_up_to_the_limit_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"four").unwrap();
        assert_eq!(read_file(file.path(), 4).unwrap(), b"four");
        let error = read_file(file.path(), 3).unwrap_err();
        assert!(
            error.to_string().ends_with("has more than 3 bytes"),
            "{error}"
        );
    }
}
