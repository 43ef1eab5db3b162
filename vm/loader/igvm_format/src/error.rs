use crate::PlatformType;

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{structure} at offset {offset:#x}: {problem}")]
pub struct IgvmError {
    /// Offset of the structure in the file, in bytes.
    pub offset: u64,
    /// The structure's name in the format.
    pub structure: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file does not begin as IGVM files do.
    #[error("the file does not begin with \"IGVM\"")]
    Magic,
    /// It does not fit into the file.
    #[error("it needs {needed} bytes, but only {available} follow")]
    Truncated {
        /// Its size in bytes.
        needed: u64,
        /// The bytes from its offset.
        available: u64,
    },
    /// The total size is not that of the file.
    #[error("it states a file of {stated} bytes, but the file has {actual}")]
    TotalSize {
        /// What the header states.
        stated: u32,
        /// The length of the file.
        actual: u64,
    },
    /// The checksum is wrong.
    #[error("its checksum is {stated:#010x}, but that of the headers is {computed:#010x}")]
    Checksum {
        /// What the header states.
        stated: u32,
        /// That of the file's bytes.
        computed: u32,
    },
    /// A field has a value that it must not have.
    #[error("{field} is {value:#x}: {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// Bytes that must be zero are not.
    #[error("{field} is not zero")]
    NotZero {
        /// The bytes.
        field: &'static str,
    },
    /// The body does not have the length of its type.
    #[error("its length is {found} bytes, not {expected}")]
    Length {
        /// What the record states.
        found: u32,
        /// What its type has.
        expected: u32,
    },
    /// The type is unknown, and not marked as optional.
    #[error("type {kind:#x} is unknown and not optional")]
    UnknownType {
        /// The type.
        kind: u32,
    },
    /// The record is in the wrong section.
    #[error("it comes after records of the {after} section")]
    Order {
        /// The section that has begun already.
        after: &'static str,
    },
    /// There is no platform header.
    #[error("no platform is declared")]
    NoPlatform,
    /// Two platform headers have the same type or mask.
    #[error("the platform {platform} has the type or the mask of an earlier one")]
    DuplicatePlatform {
        /// The second one's type.
        platform: PlatformType,
    },
    /// The platform does not exist on the file's architecture, or the record does not on the platform.
    #[error("it does not exist on the platform {platform}")]
    NotOnPlatform {
        /// The platform.
        platform: PlatformType,
    },
    /// Only one of a kind is allowed for a platform.
    #[error("there is an earlier one for the same platform")]
    Repeated,
    /// A record that must precede is missing.
    #[error("there is no {missing} before it")]
    Missing {
        /// What must precede.
        missing: &'static str,
    },
    /// A relocation header names a VP without a context.
    #[error("no VP context exists for VP {vp_index}")]
    NoVpContext {
        /// The VP.
        vp_index: u16,
    },
    /// The data is not in the file's data.
    #[error("its data, {len} bytes at offset {offset:#x}, is not within {start:#x}-{end:#x}")]
    Data {
        /// Offset of the data.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// Where the file's data begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// A parameter area is declared twice.
    #[error("parameter area {index} is declared already")]
    AreaDeclared {
        /// The area.
        index: u32,
    },
    /// A parameter area is used that is not declared, or was inserted.
    #[error("parameter area {index} {state}")]
    AreaUnusable {
        /// The area.
        index: u32,
        /// Why.
        state: &'static str,
    },
    /// A range passes the end of the address space.
    #[error("{size:#x} bytes at {gpa:#x} pass the end of the address space")]
    Overflow {
        /// Where the range starts.
        gpa: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// Two records fill the same memory of a platform.
    #[error(
        "{start:#x}-{end:#x} overlaps {other_start:#x}-{other_end:#x} of the {other} at offset {other_offset:#x}"
    )]
    Overlap {
        /// The first address of the record.
        start: u64,
        /// The first address after it.
        end: u64,
        /// The other record.
        other: &'static str,
        /// Its offset.
        other_offset: u64,
        /// Its first address.
        other_start: u64,
        /// The first address after it.
        other_end: u64,
    },
}
