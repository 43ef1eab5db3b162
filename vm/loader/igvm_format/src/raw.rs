//! The structures as they are in a file.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

pub(crate) const MAGIC: [u8; 4] = *b"IGVM";

/// The offset of the checksum in the fixed header.
pub(crate) const CHECKSUM_OFFSET: usize = 20;

/// The bit of a record's type that says that a loader may skip it.
pub(crate) const OPTIONAL: u32 = 1 << 31;

pub(crate) const SUPPORTED_PLATFORM: u32 = 0x1;
pub(crate) const GUEST_POLICY: u32 = 0x101;
pub(crate) const RELOCATABLE_REGION: u32 = 0x102;
pub(crate) const PAGE_TABLE_REGION: u32 = 0x103;
pub(crate) const CORIM_DOCUMENT: u32 = 0x104;
pub(crate) const CORIM_SIGNATURE: u32 = 0x105;
pub(crate) const CCA_POLICY: u32 = 0x106;
pub(crate) const VERSION_STRING: u32 = 0x107;
pub(crate) const PARAMETER_AREA: u32 = 0x301;
pub(crate) const PAGE_DATA: u32 = 0x302;
pub(crate) const PARAMETER_INSERT: u32 = 0x303;
pub(crate) const VP_CONTEXT: u32 = 0x304;
pub(crate) const REQUIRED_MEMORY: u32 = 0x305;
pub(crate) const SNP_ID_BLOCK: u32 = 0x30b;
pub(crate) const ERROR_RANGE: u32 = 0x30d;
pub(crate) const VBS_MEASUREMENT: u32 = 0x311;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Copy, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }
    )*};
}

structures! {
    FixedHeader {
        magic: [u8; 4],
        version: U32,
        variable_offset: U32,
        variable_size: U32,
        total_size: U32,
        checksum: U32,
    }
    /// What follows in version 2.
    FixedHeaderV2 {
        architecture: U32,
        page_size: U32,
    }
    RecordHeader {
        kind: U32,
        length: U32,
    }
    SupportedPlatform {
        mask: U32,
        highest_vtl: u8,
        platform_type: u8,
        platform_version: U16,
        shared_gpa_boundary: U64,
    }
    GuestPolicy {
        policy: U64,
        mask: U32,
        reserved: U32,
    }
    RelocatableRegion {
        mask: U32,
        vp_index: U16,
        vtl: u8,
        flags: u8,
        alignment: U64,
        gpa: U64,
        size: U64,
        minimum_gpa: U64,
        maximum_gpa: U64,
    }
    PageTableRegion {
        mask: U32,
        vp_index: U16,
        vtl: u8,
        reserved: u8,
        gpa: U64,
        size: U64,
        used_size: U64,
    }
    Corim {
        mask: U32,
        file_offset: U32,
        size: U32,
        reserved: U32,
    }
    CcaPolicy {
        mask: U32,
        reserved: U32,
        required_zero: U64,
        required_one: U64,
        hash_algorithm: u8,
        lfa_policy: u8,
        reserved_end: [u8; 6],
    }
    ParameterArea {
        size: U64,
        index: U32,
        file_offset: U32,
    }
    PageData {
        gpa: U64,
        mask: U32,
        file_offset: U32,
        flags: U32,
        data_type: U16,
        reserved: U16,
    }
    ParameterInsert {
        gpa: U64,
        mask: U32,
        index: U32,
    }
    VpContext {
        gpa: U64,
        mask: U32,
        file_offset: U32,
        vp_index: U16,
        reserved: U16,
    }
    RequiredMemory {
        gpa: U64,
        mask: U32,
        size: U32,
        flags: U32,
        reserved: U32,
    }
    Parameter {
        index: U32,
        byte_offset: U32,
    }
    ErrorRange {
        gpa: U64,
        mask: U32,
        size: U32,
    }
    SnpIdBlock {
        mask: U32,
        author_key_enabled: u8,
        reserved: [u8; 3],
        launch_digest: [u8; 48],
        family_id: [u8; 16],
        image_id: [u8; 16],
        version: U32,
        guest_svn: U32,
        id_key_algorithm: U32,
        author_key_algorithm: U32,
        id_signature: [u8; 144],
        id_key: EcdsaKey,
        author_signature: [u8; 144],
        author_key: EcdsaKey,
    }
    EcdsaKey {
        curve: U32,
        reserved: U32,
        coordinates: [u8; 144],
    }
    VbsMeasurement {
        mask: U32,
        version: U32,
        product_id: U32,
        module_id: U32,
        security_version: U32,
        policy_flags: U32,
        digest_algorithm: U32,
        signing_algorithm: U32,
        digest: [u8; 64],
        signature: [u8; 256],
        public_key: [u8; 512],
    }
}

const _: () = assert!(size_of::<SnpIdBlock>() == 696);
const _: () = assert!(size_of::<VbsMeasurement>() == 864);
const _: () = assert!(size_of::<VpContext>() == 20);
const _: () = assert!(size_of::<RelocatableRegion>() == 48);
const _: () = assert!(size_of::<CcaPolicy>() == 32);
