//! The footer of a fixed VHD (Virtual Hard Disk Image Format Specification, version 1.0): the last 512 bytes of a
//! file whose other bytes are the disk.
#![forbid(unsafe_code)]

mod footer;

pub use footer::FOOTER_LEN;
pub use footer::FixedVhd;
pub use footer::FooterError;
pub use footer::is_footer;
