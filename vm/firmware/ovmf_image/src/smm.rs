//! Checking whether firmware needs System Management Mode.

use crate::error::SmmError;
use crate::volume::FILE_PEI_CORE;
use crate::volume::FILE_SMM_CORE;
use crate::volume::Guid;
use crate::volume::SECTION_GUID_DEFINED;
use crate::volume::SECTION_VOLUME;
use crate::volume::Volume;
use crate::volume::VolumeError;
use crate::volume::array_at;
use crate::volume::sections;
use crate::volume::u16_at;
use crate::volume::u64_at;
use lzma_rust2::LzmaReader;
use std::io;
use std::io::Read as _;
use uuid::uuid;

/// GUID-defined sections that are compressed with LZMA.
pub(crate) const LZMA: Guid = uuid!("ee4e5898-3914-4259-9d6e-dc7bd79403cf").to_bytes_le();

/// The PEIM that sets up memory for System Management Mode. Only the builds of OVMF that need that mode have it.
pub(crate) const SMM_ACCESS_PEIM: Guid =
    uuid!("6c0e75b4-b0b9-44d1-8210-3377d7b4e066").to_bytes_le();

/// The maximum total size of decompressed data, in bytes. Stock OVMF decompresses to 13 MiB.
const UNPACKED_LIMIT: u64 = 64 << 20;

/// The volume of the PEI phase comes first (0.9 MiB in stock OVMF): so many bytes are decompressed in small steps.
const FIRST_UNPACKED: u64 = 2 << 20;
const STEP: u64 = 128 << 10;

/// The maximum memory for decompression besides the output, in KiB.
const UNPACK_MEMORY: u32 = 80 << 10;

/// The maximum depth of volumes in sections of files of volumes. Stock OVMF has three levels.
const MAX_DEPTH: u32 = 8;

/// Checks that the OVMF image `bytes` does not need System Management Mode. A build that does waits for ever on a
/// machine without it. Also fails if the image cannot be decompressed.
///
/// The compressed volume of the PEI phase tells, which takes some hundredths of a second. If there is no such
/// volume, all of the image is decompressed to look for an SMM core. Data that is compressed in another way than
/// in stock OVMF is not examined.
pub fn runs_without_smm(bytes: &[u8]) -> Result<(), SmmError> {
    let mut search = Search {
        budget: UNPACKED_LIMIT,
        decided: false,
    };
    let mut at = 0;
    while at < bytes.len() {
        match Volume::parse(&bytes[at..]) {
            Ok(volume) => {
                search.volume(&volume, at, 0)?;
                at += volume.bytes.len();
            }
            Err(_) => at += 4096,
        }
    }
    Ok(())
}

struct Search {
    budget: u64,
    /// The PEI phase was found and does not need System Management Mode: the search is over.
    decided: bool,
}

impl Search {
    fn volume(&mut self, volume: &Volume<'_>, offset: usize, depth: u32) -> Result<(), SmmError> {
        if self.decided {
            return Ok(());
        }
        let wanted = |name| volume.files().any(|file| file.name == name);
        if volume.files().any(|file| file.kind == FILE_SMM_CORE) || wanted(SMM_ACCESS_PEIM) {
            return Err(SmmError::Required);
        }
        if volume.files().any(|file| file.kind == FILE_PEI_CORE) {
            self.decided = true;
            return Ok(());
        }
        for file in volume.files() {
            self.sections(file.body, offset + file.offset, depth)?;
        }
        Ok(())
    }

    fn sections(&mut self, bytes: &[u8], offset: usize, depth: u32) -> Result<(), SmmError> {
        if depth > MAX_DEPTH {
            return Err(SmmError::Volume {
                reason: "its volumes are nested too deep",
            });
        }
        for section in sections(bytes) {
            if self.decided {
                break;
            }
            let offset = offset + section.start;
            match section.kind {
                SECTION_VOLUME => {
                    let volume = Volume::parse(section.body()).map_err(damaged)?;
                    self.volume(&volume, offset + section.header_len, depth + 1)?;
                }
                SECTION_GUID_DEFINED
                    if array_at(section.bytes, section.header_len) == Some(LZMA) =>
                {
                    let start =
                        u16_at(section.bytes, section.header_len + 16).map_or(0, usize::from);
                    let packed = section.bytes.get(start..).unwrap_or_default();
                    self.packed(packed, offset + start, depth + 1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn packed(&mut self, packed: &[u8], offset: usize, depth: u32) -> Result<(), SmmError> {
        let failed = |source| SmmError::Compressed { offset, source };
        let truncated = || failed(io::ErrorKind::UnexpectedEof.into());
        // The properties byte, the dictionary size, and the decompressed size.
        let len = u64_at(packed, 5).ok_or_else(truncated)?;
        if len > self.budget {
            let limit = UNPACKED_LIMIT;
            return Err(SmmError::TooLarge { offset, limit });
        }
        self.budget -= len;
        let reader = LzmaReader::new_mem_limit(packed, UNPACK_MEMORY, None).map_err(failed)?;
        let mut reader = reader.take(0);
        let mut unpacked = Vec::new();
        let mut rest = len;
        while rest > 0 {
            // In steps while the PEI phase may come, then the rest at once.
            let is_first = (unpacked.len() as u64) < FIRST_UNPACKED;
            let count = if is_first { rest.min(STEP) } else { rest };
            reader.set_limit(count);
            // Grows as it is filled: the size is not trusted.
            let read = reader.read_to_end(&mut unpacked).map_err(failed)?;
            if read as u64 != count {
                return Err(truncated());
            }
            rest -= count;
            if is_first {
                self.pei_volumes(&unpacked)?;
                if self.decided {
                    return Ok(());
                }
            }
        }
        self.sections(&unpacked, 0, depth)
    }

    /// Looks for the PEI phase in the sections that are complete so far.
    fn pei_volumes(&mut self, bytes: &[u8]) -> Result<(), SmmError> {
        for section in sections(bytes).filter(|section| section.kind == SECTION_VOLUME) {
            if let Ok(volume) = Volume::parse(section.body())
                && volume.files().any(|file| file.kind == FILE_PEI_CORE)
            {
                self.volume(&volume, 0, MAX_DEPTH)?;
            }
        }
        Ok(())
    }
}

fn damaged(error: VolumeError) -> SmmError {
    let reason = match error {
        VolumeError::NotAVolume => "it does not start with a volume header",
        VolumeError::Truncated { .. } => "it is truncated",
        VolumeError::Damaged(reason) => reason,
    };
    SmmError::Volume { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructed;
    use crate::constructed::Smm;

    #[test]
    fn builds_that_need_smm_are_refused() {
        for smm in [Smm::Without, Smm::WithoutPei] {
            runs_without_smm(&constructed::code(0x20_0000, smm)).unwrap();
        }
        for smm in [Smm::Peim, Smm::Core] {
            let error = runs_without_smm(&constructed::code(0x20_0000, smm)).unwrap_err();
            assert!(matches!(error, SmmError::Required), "{error}");
        }
    }

    #[test]
    fn decompression_stops_after_the_pei_phase() {
        let mut image = constructed::code(0x20_0000, Smm::Without);
        let header = constructed::lzma_header(&image).unwrap();
        // The end of the compressed data, which is far behind the PEI phase.
        let end = header + constructed::packed_len(&image).unwrap();
        image[end - 0x1000..end].fill(0xff);
        runs_without_smm(&image).unwrap();
        // It matters if there is no such phase.
        let mut image = constructed::code(0x20_0000, Smm::WithoutPei);
        let header = constructed::lzma_header(&image).unwrap();
        let end = header + constructed::packed_len(&image).unwrap();
        image[end - 0x1000..end].fill(0xff);
        runs_without_smm(&image).unwrap_err();
    }

    #[test]
    fn damaged_compressed_data_is_refused() {
        let mut image = constructed::code(0x20_0000, Smm::WithoutPei);
        let header = constructed::lzma_header(&image).unwrap();
        image[header] = 0xff;
        let error = runs_without_smm(&image).unwrap_err();
        assert!(matches!(error, SmmError::Compressed { offset, .. } if offset == header));
        image[header] = 0x5d;
        image[header + 5 + 4] = 1;
        let error = runs_without_smm(&image).unwrap_err();
        assert!(matches!(error, SmmError::TooLarge { .. }), "{error}");
        // It says that there is more than there is.
        image[header + 5 + 4] = 0;
        image[header + 5 + 2] += 1;
        let error = runs_without_smm(&image).unwrap_err();
        assert!(matches!(error, SmmError::Compressed { .. }), "{error}");
    }
}
