//! `openvmm snapshot`: what is in a snapshot, and whether it is what was written.

use crate::cli::SnapshotCommand;
use crate::exit::ExitCode;
use crate::message;
use crate::message::message;
use error_chain::Chain;
use serde_json::json;
use snapshot::Manifest;
use snapshot::Snapshot;
use snapshot::SnapshotError;
use std::path::Path;

/// Carries out a command.
pub(crate) fn run(command: &SnapshotCommand) -> ExitCode {
    let result = match command {
        SnapshotCommand::Verify { dir, json } => verify(dir, *json),
        SnapshotCommand::Info { dir, json } => info(dir, *json),
        SnapshotCommand::ListUnits { dir, json } => list_units(dir, *json),
    };
    match result {
        Ok(text) => message::to_stdout(&text),
        Err(error) => {
            message!("error: {}", Chain(&error));
            ExitCode::CONFIG
        }
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn verify(dir: &Path, json: bool) -> Result<String, SnapshotError> {
    let snapshot = Snapshot::open(dir)?;
    snapshot.verify(&mut |_, _| {})?;
    let Manifest { memory, files, .. } = snapshot.manifest();
    Ok(if json {
        pretty(&json!({
            "intact": true,
            "files": files.len() + 1,
            "memory_chunks": memory.chunks,
        }))
    } else {
        format!(
            "{} is intact: {} files, {} chunks of memory\n",
            dir.display(),
            files.len() + 1,
            memory.chunks
        )
    })
}

fn info(dir: &Path, json: bool) -> Result<String, SnapshotError> {
    let snapshot = Snapshot::open(dir)?;
    let manifest = snapshot.manifest();
    if json {
        return Ok(pretty(manifest));
    }
    let Manifest {
        version,
        id,
        product,
        architecture,
        created,
        machine,
        processor,
        memory,
        disks,
        units,
        ..
    } = manifest;
    let value = |name: &str| match &machine[name] {
        serde_json::Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut text = format!(
        "snapshot {id}, format {version}, written by {product} at {created}\n\
         machine: {}, {} processors, uuid {}\n\
         processor: {architecture}, {} ({}), on {}\n\
         memory: {} MiB, of which {} MiB are stored\n\
         units: {}\n",
        value("profile"),
        value("processors"),
        value("uuid"),
        processor.model,
        processor.vendor,
        processor.virtualization,
        memory.size >> 20,
        memory.stored.div_ceil(1 << 20),
        units.len()
    );
    for disk in disks {
        text.push_str(&format!(
            "{}: {} MiB, {}, {}\n",
            disk.device,
            disk.size >> 20,
            if disk.read_only {
                "read-only"
            } else {
                "read-write"
            },
            disk.path.as_deref().unwrap_or("in memory")
        ));
    }
    Ok(text)
}

fn list_units(dir: &Path, json: bool) -> Result<String, SnapshotError> {
    let manifest = Snapshot::read_manifest(dir)?;
    if json {
        return Ok(pretty(&manifest.units));
    }
    let units = manifest.units.iter();
    Ok(units
        .map(|unit| format!("{:10} {}\n", unit.size, unit.name))
        .collect())
}
