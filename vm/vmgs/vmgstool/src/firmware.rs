//! The stored firmware of a hibernated guest: reading, verifying and extracting the record.

use crate::open::Opener;
use crate::output;
use crate::output::Existing;
use anyhow::Context;
use anyhow::bail;
use firmware_hibernation::ImageWriter;
use firmware_hibernation::Record;
use firmware_hibernation::RecordError;
use firmware_hibernation::RecordReader;
use firmware_hibernation::RecordVisitor;
use firmware_hibernation::SectionData;
use firmware_hibernation::SectionKind;
use firmware_hibernation::TokenValue;
use firmware_hibernation::decode_token;
use std::io;
use std::io::Write;
use vmgs::Error;
use vmgs::StoreAccess;
use vmgs::Vmgs;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FileId;
use vmgs_format::FirmwareFileKind;

/// The result of reading a record.
pub(crate) struct Examined {
    /// The header and section table, if they are valid.
    pub(crate) record: Option<Record>,
    /// The first problem found.
    pub(crate) error: Option<RecordError>,
}

/// Writes what is read from a store to a [`RecordReader`].
struct ReaderSink<'a> {
    reader: RecordReader,
    visitor: &'a mut dyn RecordVisitor,
    error: Option<RecordError>,
}

impl Write for ReaderSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.reader.push(bytes, self.visitor) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a record and verifies all digests. Errors are those of the store; problems of the record are in
/// the result.
pub(crate) fn examine(
    store: &mut Vmgs,
    id: FileId,
    visitor: &mut dyn RecordVisitor,
) -> Result<Examined, Error> {
    let len = store.file_info(id)?.valid_bytes;
    let mut sink = ReaderSink {
        reader: RecordReader::new(len),
        visitor,
        error: None,
    };
    let read = store.read_to(id, &mut sink);
    let record = sink.reader.record().cloned();
    let error = match (sink.error, read) {
        (Some(error), _) => Some(error),
        (None, Err(error)) => return Err(error),
        (None, Ok(_)) => sink.reader.finish().err(),
    };
    Ok(Examined { record, error })
}

/// The kind of content of a file that may hold firmware.
pub(crate) fn kind(store: &mut Vmgs, id: FileId) -> Result<FirmwareFileKind, Error> {
    let len = store.file_info(id)?.valid_bytes;
    let mut prefix = [0; FIRMWARE_RECORD_HEADER_LEN];
    let read = store.read_range(id, 0, &mut prefix)?;
    Ok(FirmwareFileKind::classify(len, &prefix[..read]))
}

/// The file with the record; the usual one if there is none.
fn record_place(store: &mut Vmgs) -> FileId {
    FileId::firmware_record_places()
        .find(|id| is_record(store, *id))
        .unwrap_or(FileId::HIBERNATION_FIRMWARE)
}

/// Whether the file may have the record and begins as one.
pub(crate) fn is_record(store: &mut Vmgs, id: FileId) -> bool {
    FileId::firmware_record_places().any(|place| place == id)
        && matches!(
            kind(store, id),
            Ok(FirmwareFileKind::Record | FirmwareFileKind::DamagedRecord)
        )
}

/// A problem of the stored hibernation state.
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) id: FileId,
    pub(crate) message: String,
}

/// Checks the hibernation token and the digests of the record, which the store does not interpret. Files
/// that cannot be read are left to the check of the store.
pub(crate) fn verify(store: &mut Vmgs) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut valid = false;
    let places = FileId::firmware_record_places();
    for id in places.chain([FileId::PROPOSED_HIBERNATION_FIRMWARE]) {
        if !matches!(
            kind(store, id),
            Ok(FirmwareFileKind::Record | FirmwareFileKind::DamagedRecord)
        ) {
            continue;
        }
        match examine(store, id, &mut ()) {
            Ok(Examined { error: None, .. }) => {
                valid |= id != FileId::PROPOSED_HIBERNATION_FIRMWARE;
            }
            Ok(Examined {
                error: Some(error), ..
            }) => problems.push(Problem {
                code: "corrupt_firmware",
                id,
                message: format!("the stored firmware {id} is corrupt: {error}"),
            }),
            Err(_) => {}
        }
    }
    let id = FileId::HIBERNATION_TOKEN;
    match store
        .read_at_most(id, 4096)
        .map(|token| decode_token(&token))
    {
        Ok(Ok(TokenValue::Stored | TokenValue::Preparing)) if !valid && problems.is_empty() => {
            problems.push(Problem {
                code: "missing_firmware",
                id,
                message: format!(
                    "{id} says that the guest's firmware is stored, but there is no valid firmware"
                ),
            });
        }
        Ok(Err(error)) => problems.push(Problem {
            code: "corrupt_token",
            id,
            message: format!("{id} is not a hibernation token: {error}"),
        }),
        Ok(Ok(_)) | Err(_) => {}
    }
    problems
}

/// The part of a record to extract.
pub(crate) enum Wanted<'a> {
    /// The bare image.
    Image,
    /// The section with this name.
    Section(&'a str),
}

struct SectionWriter<'a> {
    name: &'a str,
    out: &'a mut dyn Write,
    found: bool,
}

impl RecordVisitor for SectionWriter<'_> {
    fn record(&mut self, record: &Record) -> Result<(), RecordError> {
        self.found = record.sections.iter().any(|s| s.name == self.name);
        Ok(())
    }

    fn data(&mut self, data: SectionData<'_>) -> Result<(), RecordError> {
        if data.section.name == self.name {
            self.out
                .write_all(data.bytes)
                .map_err(|error| RecordError::Target(error.into()))?;
        }
        Ok(())
    }
}

/// Extracts the firmware image or a section to a file, which appears only if all digests are right.
pub(crate) fn extract(
    opener: Opener,
    args: &crate::cli::Extract,
    wanted: &Wanted<'_>,
    existing: Existing,
) -> anyhow::Result<()> {
    let mut store =
        opener.open_unlocked(&args.store.file_path, StoreAccess::ReadOnly, &args.key)?;
    let id = args.id.unwrap_or_else(|| record_place(&mut store));
    if let FirmwareFileKind::Other = kind(&mut store, id)? {
        bail!("{id} is not firmware");
    }
    output::write_file(&args.data_path, existing, |out| {
        if matches!(wanted, Wanted::Image) && kind(&mut store, id)? == FirmwareFileKind::RawImage {
            store.read_to(id, out)?;
            return Ok(());
        }
        let examined = match wanted {
            Wanted::Image => examine(&mut store, id, &mut ImageWriter(out))?,
            Wanted::Section(name) => {
                let mut writer = SectionWriter {
                    name,
                    out,
                    found: false,
                };
                let examined = examine(&mut store, id, &mut writer)?;
                if examined.error.is_none() && !writer.found {
                    bail!("{id} has no section {name:?}; `dump --decode` lists them");
                }
                examined
            }
        };
        match examined.error {
            Some(error) => Err(error).with_context(|| format!("{id} is corrupt")),
            None => Ok(()),
        }
    })
}

/// The printed name of a kind of section.
pub(crate) fn section_kind(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::ImagePart => "image",
        SectionKind::Platform => "platform",
        SectionKind::Pinned => "pinned",
    }
}
