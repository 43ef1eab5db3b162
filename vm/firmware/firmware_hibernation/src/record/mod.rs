//! The record: the stored firmware image and everything that belongs to it.

mod contents;
mod decode;
mod encode;
mod error;
mod reader;
mod validate;

pub use contents::Record;
pub use contents::RecordSection;
pub use contents::SectionKind;
pub use encode::NewRecord;
pub use encode::RecordInputError;
pub use error::RecordError;
pub use reader::Collected;
pub use reader::Collector;
pub use reader::ImageWriter;
pub use reader::RecordReader;
pub use reader::RecordVisitor;
pub use reader::SectionData;
pub use validate::MAX_IMAGE_LEN;
pub use validate::MAX_PINNED_LEN;
pub use validate::MAX_SECTIONS;

pub(crate) use decode::decode_start;
pub(crate) use encode::encode_start;
pub(crate) use reader::Restorer;
