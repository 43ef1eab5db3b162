//! Makes IGVM files of manifests and resources, and prints and verifies any IGVM file.
//!
//! What a file holds is what a direct boot loads: both go through `loader::ImageLoad`, of which [`PackedImage`] is the
//! one that packs.
#![forbid(unsafe_code)]

mod build;
mod command;
mod context;
mod dump;
mod manifest;
mod map;
mod packed;

pub use build::GenerateError;
pub use build::Generated;
pub use build::generate;
pub use command::main;
pub use context::ContextError;
pub use dump::dump_json;
pub use dump::dump_text;
pub use dump::verify;
pub use manifest::Architecture;
pub use manifest::GuestConfig;
pub use manifest::Image;
pub use manifest::IsolationType;
pub use manifest::LinuxImage;
pub use manifest::Manifest;
pub use manifest::ReadError;
pub use manifest::ResourceKind;
pub use manifest::Resources;
pub use manifest::UefiConfigType;
pub use manifest::UefiImage;
pub use packed::CommandLine;
pub use packed::PackedImage;
