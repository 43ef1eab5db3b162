//! Errors.

/// Why an image is not firmware for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// All of its bytes are the same.
    #[error("all of its bytes are {0:#04x}")]
    Blank(u8),
    /// It is larger than the flash window of the chipset.
    #[error("it has {len} bytes, and firmware has at most {}", crate::MAX_SIZE)]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// Its length is not a multiple of the page size.
    #[error("its length of {len} bytes is not a multiple of 4 KiB; is it truncated?")]
    Size {
        /// Its length in bytes.
        len: u64,
    },
    /// It is a qcow2 disk image.
    #[error("it is a qcow2 disk image; convert it with `qemu-img convert -O raw FILE NEW_FILE`")]
    Qcow2,
    /// It is firmware for another processor.
    #[error("it is firmware for {0}, and this VM has an x86-64 processor")]
    Architecture(&'static str),
    /// It is a variable store without code.
    #[error("it is a variable store without code; name the file with the code")]
    OnlyVariables,
    /// It does not start with a firmware volume.
    #[error("it does not start with a UEFI firmware volume")]
    NoVolume,
    /// A volume is damaged.
    #[error("the firmware volume at offset {offset:#x} is damaged: {reason}")]
    Volume {
        /// Offset of the volume in the image.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A volume extends beyond the end of the file.
    #[error(
        "it is truncated: the firmware volume at offset {offset:#x} has {volume_len} bytes, of which {available} are there"
    )]
    Truncated {
        /// Offset of the volume in the image.
        offset: usize,
        /// Its length in bytes.
        volume_len: u64,
        /// How many bytes of it are in the file.
        available: usize,
    },
    /// The image does not end with a volume, so the reset vector is in none.
    #[error(
        "there is no firmware volume at its end, after offset {offset:#x}, where the reset vector is"
    )]
    NoVolumeAtEnd {
        /// End of the last volume.
        offset: usize,
    },
    /// There is no code at the reset vector.
    #[error("there is no code at the reset vector, in its last 16 bytes")]
    NoResetVector,
    /// The last volume has no SEC core file.
    #[error("its last volume has no SEC phase")]
    NoSec,
}

/// Why firmware may not run without System Management Mode.
#[derive(Debug, thiserror::Error)]
pub enum SmmError {
    /// It needs that mode.
    #[error(
        "the firmware is a Secure Boot build that needs System Management Mode, which this VM does not have; \
         use the plain build, such as OVMF_CODE_4M.fd"
    )]
    Required,
    /// It cannot be decompressed.
    #[error("the compressed volume at offset {offset:#x} of the firmware is damaged")]
    Compressed {
        /// Offset of the compressed data.
        offset: usize,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// Its decompressed size is too large.
    #[error(
        "the compressed volume at offset {offset:#x} of the firmware decompresses to more than {limit} bytes"
    )]
    TooLarge {
        /// Offset of the compressed data.
        offset: usize,
        /// The maximum decompressed size.
        limit: u64,
    },
    /// What it contains is not firmware.
    #[error("a compressed volume of the firmware is damaged: {reason}")]
    Volume {
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why bytes are not the variable store of an OVMF image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    /// Its size is that of another build.
    #[error(
        "it has {len} bytes{}, and the firmware's variable store has {expected}{}",
        build(*len), build(*expected)
    )]
    Size {
        /// Its length in bytes.
        len: u64,
        /// The length of the firmware's variable store in bytes.
        expected: u64,
    },
    /// All of its bytes are the same.
    #[error("all of its bytes are {0:#04x}")]
    Blank(u8),
    /// It does not start with a volume.
    #[error("it does not start with a firmware volume")]
    NoVolume,
    /// The volume's header is damaged.
    #[error("the header of its firmware volume is damaged: {0}")]
    Volume(&'static str),
    /// It is a volume of another kind, such as one with code.
    #[error("its firmware volume is not for variables; is it the file with the code?")]
    OtherVolume,
    /// The header of the variables, after that of the volume, is damaged.
    #[error("the header of the variables in it is damaged: {0}")]
    Store(&'static str),
}

fn build(len: u64) -> &'static str {
    match len {
        0x2_0000 => " (a 1 MiB or 2 MiB build's)",
        0x8_4000 => " (a 4 MiB build's)",
        _ => "",
    }
}
