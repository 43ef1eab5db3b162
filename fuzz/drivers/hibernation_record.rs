//! Reads a record made from the input, and starts a VM from a store with that record.

use firmware_hibernation::*;
use platform_digest::Digest;
use platform_digest::PlatformView;
use std::io::Read;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::FileId;
use vmgs_format::FirmwareRecordHeader;
use zerocopy::FromBytes;
use zerocopy::IntoBytes;

/// A valid record.
fn good() -> Vec<u8> {
    let image = FirmwareImage::new()
        .part("data", 0xffe0_0000, vec![1; 4096])
        .part("code", 0xffff_f000, vec![2; 4096]);
    let pinned = PinnedFiles::from([("tables".into(), vec![3; 100]), ("none".into(), Vec::new())]);
    let mut record = Vec::new();
    NewRecord::new(
        &FirmwareDescription::reset_vector(),
        image,
        &pinned,
        &PlatformView::default(),
    )
    .expect("the record is valid")
    .stream()
    .read_to_end(&mut record)
    .expect("it is in memory");
    record
}

/// Firmware memory that keeps the image.
#[derive(Default)]
struct Flash(Vec<(ImagePart, Vec<u8>)>);

impl FirmwareTarget for Flash {
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError> {
        let total: u64 = parts.iter().map(|part| part.len).sum();
        assert!(total <= MAX_IMAGE_LEN);
        self.0 = parts
            .iter()
            .map(|part| (part.clone(), Vec::new()))
            .collect();
        Ok(())
    }

    fn write(&mut self, part: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        let content = &mut self.0[part].1;
        assert_eq!(content.len() as u64, offset);
        content.extend_from_slice(bytes);
        Ok(())
    }
}

/// Runs one input: a byte of choices, a byte for the token, then edits of a valid record (a 16-bit offset and a byte), or
/// the record itself.
pub(crate) fn run(data: &[u8]) {
    let [choices, token, data @ ..] = data else {
        return;
    };
    let mut bytes;
    if choices & 1 == 0 {
        bytes = good();
        for edit in data.chunks_exact(3) {
            // Most fields are at the start.
            let place = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
            let place = if choices & 2 == 0 {
                place % 1100
            } else {
                place
            } % bytes.len();
            bytes[place] = edit[2];
        }
    } else {
        bytes = data.to_vec();
    }
    if choices & 4 != 0 {
        fix_checksums(&mut bytes);
    }
    if choices & 8 != 0 {
        bytes.truncate(bytes.len() - bytes.len().min(usize::from(*token)));
    }
    let sound = read(&bytes, 1 + usize::from(*token) * 16);
    start(&bytes, *token, sound);
}

/// Updates the table's digest and the CRC, as an attacker would.
fn fix_checksums(bytes: &mut [u8]) {
    let Ok((mut header, rest)) = FirmwareRecordHeader::read_from_prefix(bytes) else {
        return;
    };
    let len = (header.section_count.get() as usize).saturating_mul(FIRMWARE_RECORD_SECTION_LEN);
    if let Some(table) = rest.get(..len) {
        header.table_digest = Digest::of(table).0;
    }
    header.crc = header.expected_crc().into();
    bytes[..FIRMWARE_RECORD_HEADER_LEN].copy_from_slice(header.as_bytes());
}

/// Reads the record in pieces. Returns whether it is valid.
fn read(bytes: &[u8], piece: usize) -> bool {
    let pass = |mut reader: RecordReader, piece: usize, visitor: &mut dyn RecordVisitor| {
        for piece in bytes.chunks(piece) {
            reader.push(piece, visitor)?;
        }
        reader.finish()
    };
    let mut collector = Collector::default();
    let len = bytes.len() as u64;
    let first = pass(RecordReader::new(len), piece, &mut collector);
    // The size of the pieces makes no difference.
    let whole = pass(RecordReader::new(len), bytes.len().max(1), &mut ());
    assert_eq!(first.is_ok(), whole.is_ok(), "{first:?} {whole:?}");
    let Ok((record, checksums)) = first else {
        return false;
    };
    // The record's fields are right.
    assert_eq!(record.len, len);
    let mut at = FIRMWARE_RECORD_HEADER_LEN + record.sections.len() * FIRMWARE_RECORD_SECTION_LEN;
    for section in &record.sections {
        let end = at + section.len as usize;
        assert_eq!(Digest::of(&bytes[at..end]), section.digest);
        at = end;
    }
    assert_eq!(at, bytes.len());
    pass(RecordReader::again(len, checksums), 977, &mut ()).expect("it has not changed");
    collector.finish().is_ok()
}

/// Starts from a store with this record: the firmware is restored completely, or the start is refused.
fn start(bytes: &[u8], token: u8, sound: bool) {
    let device = MemoryDevice::new(512, 128 * 4096);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).expect("empty");
    let token = match token % 4 {
        0 => vec![0xff; 8],
        1 => vec![1, 0, 0, 0, 0, 0, 0, 0],
        2 => vec![token; usize::from(token % 13)],
        _ => b"HIBPREP1".to_vec(),
    };
    if store
        .write(FileId::HIBERNATION_FIRMWARE, Protection::Plain, bytes)
        .and_then(|()| store.write(FileId::HIBERNATION_TOKEN, Protection::Plain, &token))
        .is_err()
    {
        return;
    }
    let view = PlatformView::default();
    let status = status(&mut store, Some((Architecture::X86_64, &view)), None);
    let config = Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake)
        .expect("it is not isolated");
    let mut vm = HibernationEngine::new(
        config,
        Architecture::X86_64,
        Some(Box::new(store)),
        Box::new(|_| {}),
    );
    match vm.start(&view) {
        Ok(StartPlan::Restore(_)) => {
            assert!(sound);
            assert_eq!(status.next_start, NextStart::Resume);
            let mut flash = Flash::default();
            vm.restore_firmware(&mut flash).expect("it was validated");
            let parts: Vec<_> = flash.0.iter().map(|(part, _)| part.clone()).collect();
            let record = vm.inspect().record.expect("it was restored");
            assert_eq!(parts, record.parts());
            for ((_, content), section) in flash.0.iter().zip(&record.sections) {
                assert_eq!(Digest::of(content), section.digest);
            }
        }
        Ok(_) => assert_ne!(status.next_start, NextStart::Resume),
        Err(refusal) => assert_eq!(status.refusal, Some(refusal.reason.code())),
    }
}
