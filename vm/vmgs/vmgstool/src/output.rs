//! Output: files that replace others only on request, progress bars, and JSON.

use crate::kind;
use anyhow::Context;
use anyhow::bail;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What to do if the output exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Replace it.
    Replace,
    /// Ask the user at the terminal; without a terminal, refuse.
    AskOrRefuse,
    /// Ask the user at the terminal; without a terminal, replace it, as scripts expect.
    AskOrReplace,
}

impl Existing {
    /// [`Existing::Replace`] if the user has given an option such as `--force`.
    pub(crate) fn unless(self, forced: bool) -> Self {
        if forced { Self::Replace } else { self }
    }
}

/// Fails if `what`, which exists, is not to be replaced.
pub(crate) fn may_replace(what: &str, existing: Existing) -> anyhow::Result<()> {
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    match existing {
        Existing::Replace => Ok(()),
        Existing::AskOrReplace if !terminal => Ok(()),
        Existing::AskOrRefuse if !terminal => {
            bail!("{what} exists already; --force replaces it")
        }
        Existing::AskOrRefuse | Existing::AskOrReplace => {
            // A terminal that cannot show the question does not answer it either.
            let _ = write!(io::stderr(), "{what} exists already. Replace it? [y/N] ");
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            if matches!(answer.trim(), "y" | "Y" | "yes") {
                Ok(())
            } else {
                bail!("{what} was not replaced")
            }
        }
    }
}

/// Creates the file at `path` with the content that `write` writes. The file appears completely or not at
/// all, unless the path refers to something else than a regular file.
pub(crate) fn write_file(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("writing {}", path.display());
    kind::check_stream(path)?;
    let path = match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return write_in_place(path, write).with_context(context);
        }
        Ok(_) => {
            may_replace(&path.display().to_string(), existing)?;
            // Replace the file, and not a symbolic link to it.
            path.canonicalize().with_context(context)?
        }
        Err(_) => path.into(),
    };
    let mut temporary = temporary_beside(&path).with_context(context)?;
    write(temporary.as_file_mut()).with_context(context)?;
    temporary.as_file().sync_all().with_context(context)?;
    temporary
        .persist(&path)
        .map_err(|error| error.error)
        .with_context(context)?;
    Ok(())
}

/// Writes to a device or pipe.
fn write_in_place(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    write(&mut file)?;
    if file.metadata()?.file_type().is_block_device() {
        file.sync_data()?;
    }
    Ok(())
}

/// A temporary file in the directory of `path`, with the permissions of the file at `path` or, if there is
/// none, of a new file.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions(),
        Err(_) => std::fs::Permissions::from_mode(0o666),
    };
    // The umask applies to these permissions, as for any new file.
    tempfile::Builder::new()
        .prefix(".vmgstool-")
        .permissions(permissions)
        .tempfile_in(host_file::directory(path))
}

/// Minimum length in bytes of a copy that shows a progress bar.
const PROGRESS_FROM: u64 = 1 << 20;

/// A progress bar for `len` bytes on standard error; hidden if that is not a terminal or `len` is small.
pub(crate) fn progress(len: u64) -> ProgressBar {
    if len < PROGRESS_FROM {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len).with_style(style);
    // Show the bar before the first piece is done.
    bar.tick();
    bar
}

/// Prints a JSON document.
pub(crate) fn print_json(out: &mut dyn Write, value: &serde_json::Value) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}
