//! Reading the two headers, and choosing the active one.

use crate::damage::HeaderError;
use crate::device::BlockDevice;
use crate::device::Geometry;
use crate::error::Error;
use crate::finding::Finding;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::HEADER_AREA_SIZE;
use vmgs_format::Header;
use vmgs_format::MARKER_REPROVISIONED;
use vmgs_format::Version;
use zerocopy::FromBytes;

/// Validates a header copy of a store of `blocks` blocks.
fn validate(header: &Header, blocks: u32) -> Result<(), HeaderError> {
    let bytes = zerocopy::IntoBytes::as_bytes(header);
    if bytes.iter().all(|&b| b == 0) {
        return Err(HeaderError::Zero);
    }
    if header.signature != Header::SIGNATURE {
        return Err(HeaderError::Signature);
    }
    let size = header.header_size.get() as usize;
    let version = Version(header.version.get());
    match version {
        Version::V3_0 if size == Header::LEN => {}
        // Stores of this version have the short header, or the long one with unused fields.
        Version::V2_0 if size == Header::V2_LEN || size == Header::LEN => {}
        Version::V2_0 | Version::V3_0 => {
            return Err(HeaderError::Size(header.header_size.get()));
        }
        _ => return Err(HeaderError::Version(version)),
    }
    let table = header.file_table_offset.get();
    if table < FIRST_DATA_BLOCK || table >= blocks {
        return Err(HeaderError::TableOffset(table));
    }
    if header.file_table_size.get() != 1 {
        return Err(HeaderError::TableSize(header.file_table_size.get()));
    }
    let algorithm = EncryptionAlgorithm(header.encryption_algorithm.get());
    if version == Version::V3_0
        && !matches!(
            algorithm,
            EncryptionAlgorithm::NONE | EncryptionAlgorithm::AES_GCM
        )
    {
        return Err(HeaderError::Algorithm(algorithm.0));
    }
    let computed = Header::checksum_of(&bytes[..size]);
    let stored = header.checksum.get();
    if stored != computed {
        return Err(HeaderError::Checksum { stored, computed });
    }
    Ok(())
}

/// The version of the header at the start of `bytes`, if it is not supported and the checksum is right.
/// The headers of such versions may have other lengths.
fn unknown_version(bytes: &[u8]) -> Option<Version> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let version = Version(header.version.get());
    let known = matches!(version, Version::V2_0 | Version::V3_0);
    let len = usize::try_from(header.header_size.get()).ok()?;
    // The first header ends before the second, which is at byte 512 or 4096.
    let whole = bytes.get(..len.clamp(Header::V2_LEN, 512))?;
    let intact = header.signature == Header::SIGNATURE
        && whole.len() == len
        && header.checksum.get() == Header::checksum_of(whole);
    (intact && !known).then_some(version)
}

/// Whether sequence number `newer` is ahead of `older`, by at most half the number space.
fn is_ahead(newer: u32, older: u32) -> bool {
    matches!(newer.wrapping_sub(older), 1..=0x7fff_ffff)
}

/// The content of a device's header area.
#[derive(Debug, Clone)]
pub struct HeaderScan {
    /// The two header copies.
    pub headers: [Header; 2],
    /// Whether each header is valid, and if not, why.
    pub validity: [Result<(), HeaderError>; 2],
    /// The header, valid or not, at the place of the second header on disks of the other sector size.
    foreign: Header,
    foreign_valid: bool,
    sector_size: u32,
    partitioned: bool,
    /// The version of a header that is intact, but of an unsupported version.
    unknown_version: Option<Version>,
}

impl HeaderScan {
    /// Reads the headers of a device.
    pub fn read(device: &mut dyn BlockDevice) -> Result<Self, Error> {
        let geometry = Geometry::of(device)?;
        Self::read_with(device, &geometry)
    }

    pub(crate) fn read_with(
        device: &mut dyn BlockDevice,
        geometry: &Geometry,
    ) -> Result<Self, Error> {
        let mut area = [0; HEADER_AREA_SIZE];
        device.read_at(0, &mut area).map_err(|source| Error::Read {
            offset: 0,
            len: area.len(),
            source,
        })?;
        let sector_size = geometry.sector_size;
        let foreign_size = if sector_size == 512 { 4096 } else { 512 };
        // All three offsets are inside the area, so this does not fail.
        let at = |offset: usize| {
            Header::read_from_prefix(&area[offset..])
                .map_or_else(|_| zerocopy::FromZeros::new_zeroed(), |(h, _)| h)
        };
        let headers = [at(0), at(sector_size as usize)];
        let foreign = at(foreign_size);
        Ok(Self {
            validity: headers.map(|h| validate(&h, geometry.blocks)),
            headers,
            foreign,
            foreign_valid: validate(&foreign, geometry.blocks).is_ok(),
            sector_size,
            partitioned: area[512..].starts_with(b"EFI PART"),
            unknown_version: [0, sector_size as usize]
                .into_iter()
                .find_map(|offset| unknown_version(&area[offset..])),
        })
    }

    /// Whether both headers are zero.
    pub fn is_empty(&self) -> bool {
        self.validity == [Err(HeaderError::Zero); 2]
    }

    /// The slot of the active header: the newer one if both are valid.
    pub fn active(&self) -> Result<usize, Error> {
        if self.partitioned {
            return Err(Error::V1Format);
        }
        if self.is_empty() {
            return if self.foreign_valid {
                Err(self.sector_size_changed())
            } else {
                Err(Error::Empty)
            };
        }
        let [first, second] = self.headers.map(|h| h.sequence.get());
        let active = match self.validity {
            [Ok(()), Ok(())] if first == second.wrapping_add(1) => 0,
            [Ok(()), Ok(())] if second == first.wrapping_add(1) => 1,
            [Ok(()), Ok(())] => return Err(Error::SequenceGap { first, second }),
            [Ok(()), Err(_)] => 0,
            [Err(_), Ok(())] => 1,
            [Err(first), Err(second)] => {
                return Err(match self.unknown_version {
                    Some(version) => Error::UnsupportedVersion(version),
                    None => Error::InvalidFormat { first, second },
                });
            }
        };
        if self.is_continued_elsewhere(active) {
            return Err(self.sector_size_changed());
        }
        Ok(active)
    }

    /// Whether the header at the place for disks of the other sector size is newer than the active one, and not left
    /// over from an earlier use of the disk. Then the store was last written on a disk with those sectors.
    fn is_continued_elsewhere(&self, active: usize) -> bool {
        let foreign = self.foreign.sequence.get();
        let sequence = self.headers[active].sequence.get();
        self.foreign_valid
            && match (self.validity, active) {
                // This disk has both of its headers.
                ([Ok(()), Ok(())], _) => false,
                // Both places share the first header, of which a newer one would be the successor.
                (_, 0) => foreign == sequence.wrapping_add(1),
                _ => is_ahead(foreign, sequence),
            }
    }

    fn sector_size_changed(&self) -> Error {
        Error::SectorSizeChanged {
            sector_size: self.foreign_sector_size(),
            sequence: self.foreign.sequence.get(),
        }
    }

    fn foreign_sector_size(&self) -> u32 {
        if self.sector_size == 512 { 4096 } else { 512 }
    }

    /// Problems of the header area, given the active header.
    pub(crate) fn findings(&self, active: usize) -> Vec<Finding> {
        let mut findings = Vec::new();
        let other = 1 - active;
        let sequence = self.headers[active].sequence.get();
        match self.validity[other] {
            Ok(()) => {}
            // The second header of a store that was formatted and not changed since.
            Err(HeaderError::Zero) if other == 1 && sequence == 1 => {}
            Err(error) => findings.push(Finding::DamagedHeader {
                slot: other,
                error,
                newer: self.headers[other].signature == Header::SIGNATURE
                    && is_ahead(self.headers[other].sequence.get(), sequence),
            }),
        }
        if self.foreign_valid {
            findings.push(Finding::ForeignHeader {
                sector_size: self.foreign_sector_size(),
            });
        }
        let header = &self.headers[active];
        if header.markers.get() & !MARKER_REPROVISIONED != 0 {
            findings.push(Finding::ReservedNotZero("header markers"));
        }
        if header.reserved.get() != 0
            || header
                .metadata_keys
                .iter()
                .any(|record| record.reserved.get() != 0)
        {
            findings.push(Finding::ReservedNotZero("header"));
        }
        findings
    }
}
