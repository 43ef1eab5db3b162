//! Recognizing firmware images.

use crate::MAX_SIZE;
use crate::error::ImageError;
use crate::variables;
use crate::volume::FILE_PEI_CORE;
use crate::volume::FILE_SEC_CORE;
use crate::volume::Volume;
use crate::volume::VolumeError;
use crate::volume::repeated_byte;
use crate::volume::u32_at;
use std::ops::Range;

const PAGE: usize = 4096;

/// The guest-physical address at which ROM ends.
const ROM_END: u64 = 1 << 32;

/// A kind of firmware image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareKind {
    /// OVMF, which runs from flash below 4 GiB.
    Ovmf(Ovmf),
    /// MSVM, the firmware of Hyper-V's generation-2 VMs, which runs from RAM.
    Msvm {
        /// Range of the volume with the SEC phase in the image.
        sec: Range<usize>,
    },
}

/// A part of an image and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its guest-physical address.
    pub gpa: u64,
    /// Its range in the image, in bytes.
    pub range: Range<usize>,
}

/// The parts of an OVMF image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovmf {
    /// The code, a ROM that ends at 4 GiB.
    pub code: Region,
    /// The template of the variable store, if the image has both (`OVMF.fd`).
    pub template: Option<Region>,
    /// Guest-physical address of the variable store. It ends where the code starts.
    pub variables_gpa: u64,
    /// Length of the variable store in bytes: 0x84000 for 4 MiB builds, 0x20000 for smaller ones, 0 for builds
    /// without a variable store.
    pub variables_len: u64,
}

impl FirmwareKind {
    /// Recognizes the image `bytes`.
    pub fn recognize(bytes: &[u8]) -> Result<Self, ImageError> {
        check_size(bytes.len() as u64, bytes)?;
        if let Some(architecture) = foreign_architecture(bytes) {
            return Err(ImageError::Architecture(architecture));
        }
        if let Some(byte) = repeated_byte(bytes) {
            return Err(ImageError::Blank(byte));
        }
        let volumes = volumes(bytes)?;
        let is_variables = |range: &Range<usize>| {
            Volume::parse(&bytes[range.clone()])
                .is_ok_and(|volume| volume.guid() == variables::VOLUME_GUID)
        };
        let (first, last) = match &volumes[..] {
            [] => return Err(ImageError::NoVolume),
            [first, .., last] => (first, last),
            [only] => (only, only),
        };
        if is_variables(last) {
            return Err(ImageError::OnlyVariables);
        }
        if let Some(sec) = msvm_sec(bytes, &volumes) {
            return Ok(Self::Msvm { sec });
        }
        if last.end != bytes.len() {
            return Err(ImageError::NoVolumeAtEnd { offset: last.end });
        }
        let vector = &bytes[bytes.len() - 16..];
        if repeated_byte(vector).is_some() {
            return Err(ImageError::NoResetVector);
        }
        if !has_file(&bytes[last.clone()], FILE_SEC_CORE) {
            return Err(ImageError::NoSec);
        }
        let template = (first != last && is_variables(first)).then(|| first.clone());
        Ok(Self::Ovmf(Ovmf::new(bytes.len(), template)))
    }
}

impl Ovmf {
    /// `len` is not 0, and at most [`MAX_SIZE`]; `template` is at the start.
    fn new(len: usize, template: Option<Range<usize>>) -> Self {
        let code_start = template.as_ref().map_or(0, |range| range.end);
        let code_len = (len - code_start) as u64;
        let code_gpa = ROM_END - code_len;
        // Code and variables together fill a flash device, whose size is a power of two.
        let variables_len = match &template {
            Some(range) => range.len() as u64,
            None => code_len.next_power_of_two() - code_len,
        };
        let variables_gpa = code_gpa - variables_len;
        Self {
            code: Region {
                gpa: code_gpa,
                range: code_start..len,
            },
            template: template.map(|range| Region {
                gpa: variables_gpa,
                range,
            }),
            variables_gpa,
            variables_len,
        }
    }
}

/// Checks the length and the start of an image.
pub(crate) fn check_size(len: u64, start: &[u8]) -> Result<(), ImageError> {
    if len == 0 {
        return Err(ImageError::Empty);
    }
    if start.starts_with(b"QFI\xfb") {
        return Err(ImageError::Qcow2);
    }
    if len > MAX_SIZE {
        // Images for other processors are often padded to the size of a larger flash device.
        let architecture = foreign_architecture(start).map(ImageError::Architecture);
        return Err(architecture.unwrap_or(ImageError::TooLarge { len }));
    }
    if !len.is_multiple_of(PAGE as u64) {
        return Err(ImageError::Size { len });
    }
    Ok(())
}

/// Recognizes firmware for Arm, which starts with a branch instruction. On x86 an image starts with the 16 reserved
/// bytes of a volume header, which are zero.
fn foreign_architecture(start: &[u8]) -> Option<&'static str> {
    let word = u32_at(start, 0)?;
    if word & 0xfc00_0000 == 0x1400_0000 {
        return Some("64-bit Arm");
    }
    (word & 0xff00_0000 == 0xea00_0000).then_some("32-bit Arm")
}

/// The ranges of the volumes. There may be empty pages between them.
fn volumes(bytes: &[u8]) -> Result<Vec<Range<usize>>, ImageError> {
    let mut volumes: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match Volume::parse(&bytes[at..]) {
            Ok(volume) => {
                let end = at + volume.bytes.len();
                volumes.push(at..end);
                at = end;
            }
            Err(VolumeError::NotAVolume) if volumes.is_empty() => {
                return Err(ImageError::NoVolume);
            }
            Err(VolumeError::NotAVolume) => {
                let page = &bytes[at..bytes.len().min(at + PAGE)];
                if !matches!(repeated_byte(page), Some(0x00 | 0xff)) {
                    return Err(ImageError::Volume {
                        offset: at,
                        reason: "it does not start with a volume header",
                    });
                }
                at += page.len();
            }
            Err(VolumeError::Truncated { len }) => {
                return Err(ImageError::Truncated {
                    offset: at,
                    volume_len: len,
                    available: bytes.len() - at,
                });
            }
            Err(VolumeError::Damaged(reason)) => {
                return Err(ImageError::Volume { offset: at, reason });
            }
        }
    }
    Ok(volumes)
}

/// The volume with the SEC phase, if this is MSVM: its PEI core is in a volume of its own, while OVMF's is in a compressed
/// one. MSVM is loaded into RAM and may be followed by empty pages.
fn msvm_sec(bytes: &[u8], volumes: &[Range<usize>]) -> Option<Range<usize>> {
    let has = |volume: &Range<usize>, kind| has_file(&bytes[volume.clone()], kind);
    let pei = volumes
        .iter()
        .position(|volume| has(volume, FILE_PEI_CORE))?;
    let mut others = volumes.iter().enumerate().rev();
    let (_, sec) = others.find(|(n, volume)| *n != pei && has(volume, FILE_SEC_CORE))?;
    Some(sec.clone())
}

fn has_file(volume: &[u8], kind: u8) -> bool {
    Volume::parse(volume).is_ok_and(|volume| volume.files().any(|file| file.kind == kind))
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
