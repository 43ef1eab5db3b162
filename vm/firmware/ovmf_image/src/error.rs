//! Why an image is not used.

/// Why bytes are no firmware for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// There are only zeros, or only ones.
    #[error("all of its bytes are {0:#04x}")]
    Blank(u8),
    /// More than the chipset has room for.
    #[error("it has {len} bytes, and firmware has at most {}", crate::MAX_SIZE)]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// ROMs are made of 4 KiB pages.
    #[error("its length of {len} bytes is no multiple of 4 KiB; is it truncated?")]
    Size {
        /// Its length in bytes.
        len: u64,
    },
    /// It is a disk image that may contain firmware.
    #[error(
        "it is a qcow2 disk image; make a raw image of it with `qemu-img convert -O raw FILE NEW_FILE`"
    )]
    Qcow2,
    /// It is firmware for another processor.
    #[error("it is firmware for {0}, and this VM has an x86-64 processor")]
    Architecture(&'static str),
    /// It is the variable store that belongs to firmware.
    #[error("it is a variable store without code; the file with the code is needed too")]
    OnlyVariables,
    /// Firmware begins with a volume.
    #[error("it does not begin with a UEFI firmware volume")]
    NoVolume,
    /// A volume is not as its header says.
    #[error("the firmware volume at offset {offset:#x} is damaged: {reason}")]
    Volume {
        /// Where the volume begins.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A volume goes on behind the end of the file.
    #[error(
        "it is truncated: the firmware volume at offset {offset:#x} has {volume_len} bytes, and {available} are there"
    )]
    Truncated {
        /// Where the volume begins.
        offset: usize,
        /// Its length in bytes.
        volume_len: u64,
        /// How many of them are there.
        available: usize,
    },
    /// There is something behind the last volume, which the processor would start in.
    #[error(
        "there is no firmware volume at its end, behind offset {offset:#x}, where the processor starts"
    )]
    NoVolumeAtEnd {
        /// Where the last volume ends.
        offset: usize,
    },
    /// The processor would find nothing to execute.
    #[error("there is no code in its last 16 bytes, where the processor starts")]
    NoResetVector,
    /// The last volume has no file of the security phase.
    #[error("its last volume has no SEC phase, which the processor starts in")]
    NoSec,
}

/// Why it is not known whether firmware needs System Management Mode, or that it does.
#[derive(Debug, thiserror::Error)]
pub enum SmmError {
    /// It does.
    #[error(
        "the firmware is a Secure Boot build that needs System Management Mode, which this VM does not have; \
         use the plain build, such as OVMF_CODE_4M.fd"
    )]
    Required,
    /// It cannot be looked into.
    #[error("the compressed volume at offset {offset:#x} of the firmware is damaged")]
    Compressed {
        /// Where the compressed data begins.
        offset: usize,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// It says that it is far larger than any.
    #[error(
        "the compressed volume at offset {offset:#x} of the firmware unpacks to more than {limit} bytes"
    )]
    TooLarge {
        /// Where the compressed data begins.
        offset: usize,
        /// The most that is unpacked.
        limit: u64,
    },
    /// What it contains is no firmware.
    #[error("a compressed volume of the firmware is damaged: {reason}")]
    Volume {
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why bytes are no variable store for an OVMF image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    /// It belongs to another build.
    #[error(
        "it has {len} bytes{}, and the firmware's variable store has {expected}{}",
        build(*len), build(*expected)
    )]
    Size {
        /// Its length in bytes.
        len: u64,
        /// How many bytes it must have.
        expected: u64,
    },
    /// There are only zeros, or only ones.
    #[error("all of its bytes are {0:#04x}")]
    Blank(u8),
    /// It is not a volume.
    #[error("it does not begin with a firmware volume")]
    NoVolume,
    /// The volume's header is damaged.
    #[error("the header of its firmware volume is damaged: {0}")]
    Volume(&'static str),
    /// It is a volume of another kind, such as one with code.
    #[error("its firmware volume is none for variables; is it the file with the code?")]
    OtherVolume,
    /// What follows the volume's header is damaged.
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
