//! Restoring the stored firmware, and comparing it with what is loaded.

use crate::image::FirmwareImage;
use crate::image::FirmwareTarget;
use crate::image::PinnedFiles;
use crate::probe;
use crate::probe::IntactRecord;
use crate::record::RecordError;
use crate::record::RecordReader;
use crate::record::RecordSection;
use crate::record::Restorer;
use crate::record::SectionKind;
use crate::refusal::RefusalReason;
use crate::storage::Storage;
use platform_digest::Digest;

/// Reads the record again and writes its image to `target`. Returns the entry point.
pub(crate) fn restore_record(
    storage: &mut dyn Storage,
    stored: &IntactRecord,
    target: &mut dyn FirmwareTarget,
) -> Result<u64, RefusalReason> {
    let reader = RecordReader::again(stored.record.len, stored.checksums.clone());
    let (record, _) = match probe::read_with(storage, reader, &mut Restorer(target)) {
        Err(RefusalReason::CorruptImage(error)) => return Err(RefusalReason::NotRestored(error)),
        result => result?,
    };
    if record != stored.record {
        let error = RecordError::Changed("header".into());
        return Err(RefusalReason::NotRestored(error));
    }
    match target.find_entry(record.entry_rule) {
        Ok(None) => Ok(record.entry_gpa),
        Ok(Some(found)) if found == record.entry_gpa => Ok(found),
        Ok(Some(found)) => Err(RefusalReason::OtherEntry {
            stored: record.entry_gpa,
            found,
        }),
        Err(error) => Err(RefusalReason::NoEntry(error)),
    }
}

/// The names of the parts of `image` and of the pinned files that differ from the stored ones.
pub(crate) fn differing(
    stored: &IntactRecord,
    image: &FirmwareImage,
    pinned: &PinnedFiles,
) -> Vec<String> {
    let parts = image.parts().iter().map(|(part, content)| RecordSection {
        kind: SectionKind::ImagePart,
        name: part.name.clone(),
        gpa: part.gpa,
        len: part.len,
        digest: Digest::of(content),
    });
    let files = pinned.iter().map(|(name, content)| RecordSection {
        kind: SectionKind::Pinned,
        name: name.clone(),
        gpa: 0,
        len: content.len() as u64,
        digest: Digest::of(content),
    });
    let loaded: Vec<_> = parts.chain(files).collect();
    let stored = &stored.record.sections;
    let missing = |here: &[RecordSection], there: &[RecordSection]| -> Vec<String> {
        let relevant = here
            .iter()
            .filter(|section| section.kind != SectionKind::Platform);
        let missing = relevant.filter(|section| !there.contains(section));
        missing.map(|section| section.name.clone()).collect()
    };
    let mut names = missing(stored, &loaded);
    names.append(&mut missing(&loaded, stored));
    names.sort();
    names.dedup();
    names
}
