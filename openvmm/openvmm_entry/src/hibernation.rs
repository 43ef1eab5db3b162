//! `openvmm hibernation`: what a VM that is off would do when it is started.

use crate::exit::ExitCode;
use crate::message;
use crate::message::message;
use error_chain::Chain;
use firmware_hibernation::SequenceNoteFile;
use firmware_hibernation::Status;
use std::path::Path;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;

/// Prints what the next start would do, and why. Nothing is changed.
pub(crate) fn status(path: &Path, json: bool) -> ExitCode {
    let opened = FileDevice::open(path, Container::Detect, StoreAccess::ReadOnly)
        .map_err(|error| Box::new(error) as Box<dyn std::error::Error>)
        .and_then(|device| {
            let options = OpenOptions {
                access: StoreAccess::ReadOnly,
                ..OpenOptions::default()
            };
            Ok(Vmgs::open(Box::new(device), options)?)
        });
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => {
            message!("error: cannot read {}: {}", path.display(), Chain(&*error));
            return ExitCode::CONFIG;
        }
    };
    let note = SequenceNoteFile::beside(path);
    let status = firmware_hibernation::status(&mut store, None, note.as_ref());
    message::to_stdout(&if json {
        as_json(&status)
    } else {
        as_text(&status)
    })
}

fn as_json(status: &Status) -> String {
    let mut text = serde_json::to_string_pretty(status).unwrap_or_default();
    text.push('\n');
    text
}

fn as_text(status: &Status) -> String {
    let mut text = format!(
        "next start: {}\nreason: {}\n",
        status.next_start, status.reason
    );
    if let Some(record) = &status.stored {
        text.push_str(&format!(
            "stored firmware: {} bytes, image {}, digest {}\n",
            record.image_len, record.image_id, record.image_digest
        ));
    }
    if let Some(problem) = &status.stored_problem {
        text.push_str(&format!("stored firmware: {problem}\n"));
    }
    if let Some(advice) = status.advice {
        text.push_str(&format!("advice: {advice}\n"));
    }
    for way in &status.ways_on {
        text.push_str(&format!(
            "--hibernation-override {way}: {}\n",
            way.meaning()
        ));
    }
    text
}
