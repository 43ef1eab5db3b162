//! Writing files without destroying others, and showing progress.

use anyhow::Context;
use anyhow::bail;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;

/// What is at stake if something exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Replace it.
    Replace,
    /// Ask whoever sits at the terminal; without a terminal, refuse.
    AskOrRefuse,
    /// Ask whoever sits at the terminal; without a terminal, replace it, as scripts expect.
    AskOrReplace,
}

/// Whether to go on although `what` exists.
pub(crate) fn may_replace(what: &str, existing: Existing) -> anyhow::Result<()> {
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    match existing {
        Existing::Replace => Ok(()),
        Existing::AskOrReplace if !terminal => Ok(()),
        Existing::AskOrRefuse if !terminal => {
            bail!("{what} exists already; --force replaces it")
        }
        Existing::AskOrRefuse | Existing::AskOrReplace => {
            eprint!("{what} exists already. Replace it? [y/N] ");
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

/// Makes the file at `path` with what `write` writes. It appears whole or not at all, unless the path
/// leads to something else than a file.
pub(crate) fn write_file(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("writing {}", path.display());
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let mut file = File::options()
                .write(true)
                .open(path)
                .with_context(context)?;
            return write(&mut file).with_context(context);
        }
        Ok(_) => may_replace(&path.display().to_string(), existing)?,
        Err(_) => {}
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    let mut temporary = temporary_beside(&path).with_context(context)?;
    write(temporary.as_file_mut()).with_context(context)?;
    temporary.as_file().sync_all().with_context(context)?;
    temporary
        .persist(&path)
        .map_err(|error| error.error)
        .with_context(context)?;
    Ok(())
}

/// A temporary file in the directory of `path`, with the permissions that a new file has there, or those
/// of the file at `path`.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let permissions = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions(),
        Err(_) => std::fs::Permissions::from_mode(0o666),
    };
    // Permissions given at creation are subject to the umask, as with any new file.
    tempfile::Builder::new()
        .prefix(".vmgstool-")
        .permissions(permissions)
        .tempfile_in(directory)
}

/// Copies at least this large show how far they are.
const PROGRESS_FROM: u64 = 1 << 20;

/// A bar on standard error, if that is a terminal and it is worth it.
pub(crate) fn progress(len: u64) -> ProgressBar {
    if len < PROGRESS_FROM {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len).with_style(style);
    // Whoever waits sees what for, even before the first piece is done.
    bar.tick();
    bar
}

/// Prints a JSON document.
pub(crate) fn print_json(out: &mut dyn Write, value: &serde_json::Value) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
