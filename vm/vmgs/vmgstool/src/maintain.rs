//! Checking and mending whole stores.

use crate::cli;
use crate::exit;
use crate::exit::Answer;
use crate::firmware;
use crate::open::Place;
use crate::open::read_key;
use crate::open::require_unlocked;
use crate::open::unlock;
use crate::output;
use anyhow::Context;
use serde_json::json;
use std::io::Write;
use vmgs::HeaderPolicy;
use vmgs::Severity;
use vmgs::StoreAccess;
use vmgs_format::FileIdRange;

pub(crate) fn verify(
    place: Place,
    args: &cli::Verify,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let cli::StoreOptionalKey { store, key } = &args.target;
    let key = key.key_path.as_deref().map(read_key).transpose()?;
    let headers = if args.strict {
        HeaderPolicy::Strict
    } else {
        HeaderPolicy::FallBack
    };
    let mut store = place.open_with(&store.file_path, StoreAccess::ReadOnly, headers)?;
    unlock(&mut store, key.as_ref())?;
    let total = store
        .files()
        .filter(|(id, _)| id.range() == FileIdRange::File)
        .map(|(_, info)| info.valid_bytes)
        .fold(0, u64::saturating_add);
    let bar = output::progress(total);
    let (mut checked, mut begun) = (0, 0u64);
    let findings = store.verify(|_, bytes| {
        checked += 1;
        bar.set_position(begun);
        begun = begun.saturating_add(bytes);
    });
    bar.finish_and_clear();
    let problems = firmware::verify(&mut store);
    let mut worst = findings.iter().map(vmgs::Finding::severity).max();
    if !problems.is_empty() {
        // What is damaged cannot be restored.
        worst = Some(Severity::Error);
    }
    let locked = store.is_locked();
    if json {
        let mut listed: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "code": finding.code(),
                    "severity": name(finding.severity()),
                    "file_id": finding.file_id().map(|id| id.0),
                    "message": finding.to_string(),
                })
            })
            .collect();
        listed.extend(problems.iter().map(|problem| {
            json!({
                "code": problem.code,
                "severity": name(Severity::Error),
                "file_id": problem.id.0,
                "message": problem.message,
            })
        }));
        let answer = json!({
            "ok": worst < Some(Severity::Warning),
            "files_checked": checked,
            "locked": locked,
            "findings": listed,
        });
        output::print_json(out, &answer)?;
    } else {
        for finding in &findings {
            writeln!(out, "{}: {finding}", name(finding.severity()))?;
        }
        for problem in &problems {
            writeln!(out, "{}: {}", name(Severity::Error), problem.message)?;
        }
        if locked {
            writeln!(
                out,
                "note: encrypted content was not checked, no key was given"
            )?;
        }
        let count = findings.len() + problems.len();
        writeln!(out, "{checked} files checked, {count} findings")?;
    }
    match worst {
        Some(Severity::Error) => Err(Answer(exit::VERIFY_ERROR).into()),
        Some(Severity::Warning) => Err(Answer(exit::VERIFY_WARNING).into()),
        Some(Severity::Note) | None => Ok(()),
    }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(crate) fn grow(place: Place, args: &cli::Grow) -> anyhow::Result<()> {
    // Only what is a store is grown.
    let store = place.open(&args.store.file_path, StoreAccess::ReadOnly)?;
    let bar = output::progress(store.device_size());
    drop(store);
    let grown = vmgs::grow_file(
        &args.store.file_path,
        place.container,
        args.file_size,
        |len| bar.inc(len),
    );
    bar.finish_and_clear();
    grown.with_context(|| format!("growing {}", args.store.file_path.display()))
}

pub(crate) fn scrub(place: Place, args: &cli::StoreOptionalKey) -> anyhow::Result<()> {
    let mut store =
        place.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    store.scrub().context("wiping free blocks")
}

pub(crate) fn upgrade(place: Place, args: &cli::Store) -> anyhow::Result<()> {
    let mut store = place.open(&args.file_path, StoreAccess::ReadWrite)?;
    store.upgrade().context("upgrading the store")
}

pub(crate) fn accept_plain(place: Place, args: &cli::OneFileKey) -> anyhow::Result<()> {
    let mut store =
        place.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    require_unlocked(&store)?;
    store
        .accept_plain(args.file.id)
        .with_context(|| format!("accepting {}", args.file.id))
}
