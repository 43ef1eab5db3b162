//! Storing, showing, moving and deleting files.

use crate::cli;
use crate::decode;
use crate::file_uses;
use crate::firmware;
use crate::firmware::Wanted;
use crate::input;
use crate::open;
use crate::open::Opener;
use crate::open::require_unlocked;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use file_identity::FileUse;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use vmgs::Error;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;

pub(crate) fn write(opener: Opener, args: &cli::Write) -> anyhow::Result<()> {
    // Scripts expect that an encrypted file can be replaced by an unencrypted one.
    let protection = if args.target.key.key_path.is_some() {
        Protection::Encrypted
    } else {
        Protection::PlainOverEncrypted
    };
    store_file(opener, args, protection)
}

pub(crate) fn inject(opener: Opener, args: &cli::Inject) -> anyhow::Result<()> {
    let protection = if args.plain {
        Protection::PlainOverEncrypted
    } else {
        Protection::IfEncrypted
    };
    store_file(opener, &args.write, protection)
}

fn store_file(opener: Opener, args: &cli::Write, protection: Protection) -> anyhow::Result<()> {
    let cli::OneFileKey { store, file, key } = &args.target;
    let context = || format!("reading {}", args.data_path.display());
    let mut data = input::open(&args.data_path)?;
    let metadata = data.metadata().with_context(context)?;
    let mut store = opener.open_unlocked(&store.file_path, StoreAccess::ReadWrite, key)?;
    let existing = Existing::AskOrRefuse.unless(args.allow_overwrite);
    may_store(&store, file.id, existing)?;
    let (result, bytes) = if metadata.is_file() {
        let len = metadata.len();
        let bar = output::progress(len);
        let result = store.write_from(file.id, protection, len, &mut bar.wrap_read(&mut data));
        bar.finish_and_clear();
        (result, len)
    } else {
        // The length of a pipe is not known in advance.
        let content = input::read_open_file(data, &args.data_path, vmgs::READ_LIMIT)?;
        let result = store.write(file.id, protection, &content);
        (result, content.len() as u64)
    };
    result.with_context(|| format!("storing {}", file.id))?;
    tracing::info!(id = %file.id, bytes, "stored a file");
    Ok(())
}

/// Fails if the file exists, has content, and is not to be replaced.
pub(crate) fn may_store(store: &Vmgs, id: FileId, existing: Existing) -> anyhow::Result<()> {
    if id.range() != FileIdRange::File {
        return Err(Error::InvalidFileId(id).into());
    }
    match store.file_info(id) {
        Ok(info) if info.valid_bytes != 0 => output::may_replace(&format!("file {id}"), existing),
        _ => Ok(()),
    }
}

/// Whether the content can be shown. Without the key, the ciphertext is.
fn is_readable(store: &Vmgs, id: FileId) -> anyhow::Result<bool> {
    let info = store.file_info(id)?;
    // Encrypted files of a store without keys have no key either.
    let keyless = store.is_locked() || !store.is_encrypted();
    let readable = !(keyless && info.encrypted);
    if !readable {
        tracing::warn!(%id, "the file is encrypted; showing it as it is stored");
    }
    Ok(readable)
}

fn copy(store: &mut Vmgs, id: FileId, stored: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let len = store.file_info(id)?.valid_bytes;
    let bar = output::progress(len);
    let mut out = bar.wrap_write(out);
    let result = if stored {
        store.read_stored_to(id, &mut out)
    } else {
        store.read_to(id, &mut out)
    };
    bar.finish_and_clear();
    result.with_context(|| format!("reading {id}"))?;
    Ok(())
}

pub(crate) fn dump(
    opener: Opener,
    args: &cli::Dump,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let cli::OneFileKey { store, file, key } = &args.source;
    let id = open::possible(file.id)?;
    let mut store = opener.open_unlocked(&store.file_path, StoreAccess::ReadOnly, key)?;
    if id.range() != FileIdRange::File {
        return Err(Error::InvalidFileId(id).into());
    }
    let readable = is_readable(&store, id)?;
    if let Some(path) = &args.data_path {
        let existing = Existing::AskOrReplace.unless(args.force);
        return output::write_file(path, existing, |out| copy(&mut store, id, !readable, out));
    }
    if args.raw_stdout {
        // Content that is not authentic is not printed.
        return copy(&mut store, id, !readable, out);
    }
    let info = store.file_info(id)?;
    if args.decode || json {
        let view = decode::view(&mut store, id, info);
        if json {
            return output::print_json(out, &view.json(id, info));
        }
        return Ok(out.write_all(view.text().as_bytes())?);
    }
    let content = if readable {
        store.read(id)
    } else {
        store.read_stored(id)
    };
    let content = content.with_context(|| format!("reading {id}"))?;
    let mut out = std::io::BufWriter::new(out);
    for line in content.chunks(16) {
        for byte in line {
            write!(out, "{byte:#04x},")?;
        }
        let graphic = |b: &u8| {
            if b.is_ascii_graphic() {
                char::from(*b)
            } else {
                '.'
            }
        };
        let text: String = line.iter().map(graphic).collect();
        let padding = (16 - line.len()) * 5 + 1;
        writeln!(out, "{:padding$}// {text}", "")?;
    }
    out.flush()?;
    Ok(())
}

/// `uses` are the files that the options name.
pub(crate) fn extract(
    opener: Opener,
    args: &cli::Extract,
    mut uses: Vec<FileUse>,
) -> anyhow::Result<()> {
    let existing = Existing::AskOrRefuse.unless(args.force);
    let wanted = match &args.section {
        Some(name) => Some(Wanted::Section(name)),
        None => args.image.then_some(Wanted::Image),
    };
    if let Some(wanted) = wanted {
        return firmware::extract(opener, args, &wanted, existing);
    }
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadOnly, &args.key)?;
    if let Some(id) = args.id {
        store.file_info(open::possible(id)?)?;
        return output::write_file(&args.data_path, existing, |out| {
            copy(&mut store, id, args.stored, out)
        });
    }
    let directory: &Path = &args.data_path;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    let outputs: Vec<_> = store
        .files()
        .map(|(id, _)| id)
        .filter(|id| id.range() == FileIdRange::File)
        .map(|id| (id, directory.join(id.to_string())))
        .collect();
    let written = |(_, path): &(_, PathBuf)| FileUse::write("the output", path);
    uses.extend(outputs.iter().map(written));
    file_uses::refuse_shared(&uses)?;
    let mut failure = None;
    for (id, path) in outputs {
        let written = output::write_file(&path, existing, |out| {
            copy(&mut store, id, args.stored, out)
        });
        match written {
            Ok(()) => tracing::info!(%id, path = %path.display(), "extracted"),
            Err(error) => {
                // Go on with the other files.
                tracing::error!(%id, "{error:#}");
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(()), |error| {
        Err(error.context("not all files were extracted"))
    })
}

pub(crate) fn move_file(opener: Opener, args: &cli::Move) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    require_unlocked(&store)?;
    let (from, to) = (open::possible(args.src_file_id)?, args.dst_file_id);
    if !args.allow_overwrite && store.is_allocated(from) && store.is_allocated(to) {
        output::may_replace(&format!("file {to}"), Existing::AskOrRefuse)?;
    }
    store
        .move_file(from, to, Overwrite::Allow)
        .with_context(|| format!("moving {from} to {to}"))
}

pub(crate) fn delete(opener: Opener, args: &cli::OneFileKey) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    store
        .delete(open::possible(args.file.id)?)
        .with_context(|| format!("deleting {}", args.file.id))
}
