//! Showing headers, tables and files.

use crate::cli;
use crate::decode;
use crate::headers;
use crate::open;
use crate::open::Opener;
use crate::output;
use anyhow::Context;
use serde_json::json;
use std::io::Write;
use vmgs::HeaderScan;
use vmgs::StoreAccess;
use vmgs_format::FileIdRange;

pub(crate) fn dump_headers(
    opener: Opener,
    args: &cli::Store,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut device = opener.device(&args.file_path, StoreAccess::ReadOnly)?;
    let scan = HeaderScan::read(&mut device)?;
    if json {
        output::print_json(out, &headers::as_json(&scan))?;
    } else {
        out.write_all(headers::text(&scan).as_bytes())?;
    }
    scan.active()?;
    Ok(())
}

pub(crate) fn query_size(
    opener: Opener,
    args: &cli::OneFileKey,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    // Sizes are not encrypted.
    let store = match args.key.key_path {
        Some(_) => opener.open_unlocked(&args.store.file_path, StoreAccess::ReadOnly, &args.key)?,
        None => opener.open(&args.store.file_path, StoreAccess::ReadOnly)?,
    };
    let info = store
        .file_info(open::possible(args.file.id)?)
        .with_context(|| format!("querying the size of {}", args.file.id))?;
    if json {
        let answer = json!({
            "id": args.file.id.0,
            "name": args.file.id.name(),
            "valid_bytes": info.valid_bytes,
            "allocated_bytes": info.allocated_bytes,
            "encrypted": info.encrypted,
        });
        output::print_json(out, &answer)
    } else {
        Ok(writeln!(out, "{}", info.valid_bytes)?)
    }
}

pub(crate) fn dump_file_table(
    opener: Opener,
    args: &cli::StoreOptionalKey,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let store = opener.open_unlocked(&args.store.file_path, StoreAccess::ReadOnly, &args.key)?;
    if json {
        let files: Vec<_> = store
            .files()
            .map(|(id, info)| {
                let (block, blocks) = store.file_location(id).unwrap_or_default();
                json!({
                    "id": id.0,
                    "name": id.name(),
                    "allocated_bytes": info.allocated_bytes,
                    "valid_bytes": info.valid_bytes,
                    "encrypted": info.encrypted,
                    "first_block": block,
                    "blocks": blocks,
                })
            })
            .collect();
        return output::print_json(out, &json!({ "files": files }));
    }
    let dashes = |n| "-".repeat(n);
    writeln!(out, "FILE TABLE")?;
    writeln!(
        out,
        "{:^7} {:^25} {:^9} {:^9} {:^9}",
        "File ID", "File Name", "Allocated", "Valid", "Encrypted"
    )?;
    writeln!(
        out,
        "{} {} {} {} {}",
        dashes(7),
        dashes(25),
        dashes(9),
        dashes(9),
        dashes(9)
    )?;
    for (id, info) in store.files() {
        writeln!(
            out,
            "{:>7} {:^25} {:>9} {:>9} {:^9}",
            id.0,
            id.to_string(),
            info.allocated_bytes,
            info.valid_bytes,
            info.encrypted.to_string()
        )?;
    }
    Ok(())
}

pub(crate) fn ls(
    opener: Opener,
    args: &cli::StoreOptionalKey,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadOnly, &args.key)?;
    let files: Vec<_> = store
        .files()
        .filter(|(id, _)| id.range() == FileIdRange::File)
        .collect();
    if json {
        let listed: Vec<_> = files
            .iter()
            .map(|(id, info)| decode::view(&mut store, *id, *info).json(*id, *info))
            .collect();
        let (slot, sequence) = store.active_header();
        let answer = json!({
            "version": store.version().to_string(),
            "active_header": slot + 1,
            "sequence": sequence,
            "encrypted": store.is_encrypted(),
            "keys": store.key_count(),
            "reprovisioned": store.is_reprovisioned(),
            "device_size": store.device_size(),
            "free_bytes": store.free_size(),
            "largest_gap": store.largest_gap(),
            "files": listed,
        });
        return output::print_json(out, &answer);
    }
    writeln!(
        out,
        "{:>3} {:<20} {:>10} {:<5} Content",
        "Id", "Name", "Bytes", "Enc"
    )?;
    for (id, info) in files {
        let view = decode::view(&mut store, id, info);
        writeln!(
            out,
            "{:>3} {:<20} {:>10} {:<5} {}",
            id.0,
            id.name().unwrap_or("-"),
            info.valid_bytes,
            if info.encrypted { "yes" } else { "no" },
            view.summary()
        )?;
    }
    writeln!(
        out,
        "{} bytes free of {}, the longest run {}",
        store.free_size(),
        store.device_size(),
        store.largest_gap()
    )?;
    Ok(())
}
