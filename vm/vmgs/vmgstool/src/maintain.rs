//! Checking and maintaining whole stores.

use crate::cli;
use crate::exit;
use crate::exit::QuietExit;
use crate::firmware;
use crate::flash_variables;
use crate::open::Opener;
use crate::open::read_key;
use crate::open::require_unlocked;
use crate::open::unlock;
use crate::output;
use anyhow::Context;
use ovmf_image::VariablesState;
use serde_json::json;
use std::io::Write;
use vmgs::HeaderPolicy;
use vmgs::Severity;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;

/// A problem that `verify` reports.
struct Report {
    code: &'static str,
    severity: Severity,
    id: Option<FileId>,
    message: String,
}

pub(crate) fn verify(
    opener: Opener,
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
    let mut store = opener.open_with(&store.file_path, StoreAccess::ReadOnly, headers)?;
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
    let mut reports: Vec<_> = findings
        .iter()
        .map(|finding| Report {
            code: finding.code(),
            severity: finding.severity(),
            id: finding.file_id(),
            message: finding.to_string(),
        })
        .collect();
    // Damaged hibernation state cannot be restored.
    reports.extend(firmware::verify(&mut store).into_iter().map(|p| Report {
        code: p.code,
        severity: Severity::Error,
        id: Some(p.id),
        message: p.message,
    }));
    reports.extend(flash_variables(&mut store));
    let worst = reports.iter().map(|report| report.severity).max();
    let locked = store.is_locked();
    if json {
        let listed: Vec<_> = reports
            .iter()
            .map(|report| {
                json!({
                    "code": report.code,
                    "severity": name(report.severity),
                    "file_id": report.id.map(|id| id.0),
                    "message": report.message,
                })
            })
            .collect();
        let answer = json!({
            "ok": worst < Some(Severity::Warning),
            "files_checked": checked,
            "locked": locked,
            "findings": listed,
        });
        output::print_json(out, &answer)?;
    } else {
        for report in &reports {
            writeln!(out, "{}: {}", name(report.severity), report.message)?;
        }
        if locked {
            writeln!(
                out,
                "note: encrypted content was not checked, no key was given"
            )?;
        }
        writeln!(out, "files checked: {checked}, findings: {}", reports.len())?;
    }
    match worst {
        Some(Severity::Error) => Err(QuietExit(exit::VERIFY_ERROR).into()),
        Some(Severity::Warning) => Err(QuietExit(exit::VERIFY_WARNING).into()),
        Some(Severity::Note) | None => Ok(()),
    }
}

/// The variables of PC firmware, if openvmm would refuse them. A file that cannot be read is left to the check of the
/// store.
fn flash_variables(store: &mut Vmgs) -> Option<Report> {
    let id = flash_variables::FILE;
    let (code, severity, message) = match flash_variables::check(store).ok()? {
        Ok(VariablesState::Intact) => return None,
        Ok(VariablesState::Interrupted) => (
            "interrupted-variables",
            Severity::Note,
            format!("the firmware was rewriting {id}, and finishes that at the next start"),
        ),
        Err(error) => (
            "corrupt-variables",
            Severity::Error,
            format!("{id} cannot be used by the firmware: {error}"),
        ),
    };
    Some(Report {
        code,
        severity,
        id: Some(id),
        message,
    })
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(crate) fn grow(opener: Opener, args: &cli::Grow) -> anyhow::Result<()> {
    // Check that the file contains a store.
    let store = opener.open(&args.store.file_path, StoreAccess::ReadOnly)?;
    let bar = output::progress(store.device_size());
    drop(store);
    let grown = vmgs::grow_file(
        &args.store.file_path,
        opener.container,
        args.file_size,
        |len| bar.inc(len),
    );
    bar.finish_and_clear();
    grown.with_context(|| format!("growing {}", args.store.file_path.display()))
}

pub(crate) fn scrub(opener: Opener, args: &cli::StoreOptionalKey) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    store.scrub().context("wiping free blocks")
}

pub(crate) fn upgrade(opener: Opener, args: &cli::Store) -> anyhow::Result<()> {
    let mut store = opener.open(&args.file_path, StoreAccess::ReadWrite)?;
    store.upgrade().context("upgrading the store")
}

pub(crate) fn accept_plain(opener: Opener, args: &cli::OneFileKey) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadWrite, &args.key)?;
    require_unlocked(&store)?;
    store
        .accept_plain(args.file.id)
        .with_context(|| format!("accepting {}", args.file.id))
}
