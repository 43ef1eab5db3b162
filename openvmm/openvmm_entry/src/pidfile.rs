//! The file that says which process the VM is.

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// A file with the process's id.
#[derive(Clone)]
pub(crate) struct PidFile(Arc<PathBuf>);

impl PidFile {
    /// Writes the file.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let written = || -> io::Result<()> {
            let mut file = host_file::open_output(path)?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes())
        };
        written().map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        // Another directory may be current when it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self(Arc::new(path)))
    }

    /// Removes the file, when the process is about to end. A device stays.
    pub(crate) fn remove(&self) {
        let metadata = std::fs::metadata(&*self.0);
        if metadata.is_ok_and(|metadata| !metadata.is_file()) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&*self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the process's id file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_id_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "an older and longer text").unwrap();
        let pidfile = PidFile::create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        pidfile.remove();
        assert!(!path.exists());
        pidfile.remove();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = PidFile::create(Path::new("/nonexistent/pid"))
            .err()
            .unwrap();
        assert!(error.contains("/nonexistent/pid"), "{error}");
    }
}
