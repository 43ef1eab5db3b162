//! Firmware preservation: a guest that hibernated resumes on the firmware it hibernated with.
//!
//! A guest that hibernates saves an image of its memory that depends on the firmware of this boot: the memory map and
//! the tables that it found. If the host's firmware is another one when the guest resumes, its session is lost. So at a
//! cold start the firmware is [captured](HibernationEngine::capture) to the VM's VMGS store, a hibernation leaves a
//! token there, and a start that finds the token [restores](HibernationEngine::restore_firmware) the firmware instead
//! of loading the host's.
//!
//! [`HibernationEngine`] is what a VMM uses. Inside, a state machine decides and the engine performs the effects on a
//! [`Storage`] (a VMGS store or its broker) and a [`FirmwareTarget`] (guest memory or flash). Nothing here depends on
//! a hypervisor or a command line.
//!
//! ```text
//!          start()            HostFirmware: load it ------------------------+
//!            |                                                              v
//!            +---> StartPlan  Capture: load it, then capture(image) ----> run() ... wake(), power_off(),
//!            |                                                              ^       reset(), hibernate()
//!            |                Restore: restore_firmware(target) ------------+
//!            v
//!         Refusal: the token stays
//! ```
#![forbid(unsafe_code)]

mod broker;
mod capture;
mod config;
mod engine;
mod event;
mod image;
mod place;
mod probe;
mod record;
mod refusal;
mod restore;
mod saved_state;
mod sequence_note;
mod state_machine;
mod status;
mod storage;
mod token;

pub use broker::BrokerStorage;
pub use config::Config;
pub use config::ConsumePolicy;
pub use config::IsolatedVm;
pub use config::Isolation;
pub use config::Mode;
pub use config::Override;
pub use config::TakeoverSignal;
pub use config::UnknownName;
pub use engine::HibernationEngine;
pub use engine::Inspection;
pub use engine::StartPlan;
pub use engine::TokenNotDurable;
pub use event::HibernationEvent;
pub use event::HibernationEventSink;
pub use event::Level;
pub use event::Stored;
pub use image::Architecture;
pub use image::EntryRule;
pub use image::FirmwareDescription;
pub use image::FirmwareImage;
pub use image::FirmwareTarget;
pub use image::ImagePart;
pub use image::PinnedFiles;
pub use image::RESET_VECTOR;
pub use image::TargetError;
pub use record::Collected;
pub use record::Collector;
pub use record::ImageWriter;
pub use record::MAX_IMAGE_LEN;
pub use record::MAX_PINNED_LEN;
pub use record::MAX_SECTIONS;
pub use record::NewRecord;
pub use record::Record;
pub use record::RecordError;
pub use record::RecordInputError;
pub use record::RecordReader;
pub use record::RecordSection;
pub use record::RecordVisitor;
pub use record::SectionData;
pub use record::SectionKind;
pub use refusal::Refusal;
pub use refusal::RefusalReason;
pub use sequence_note::SequenceNote;
pub use sequence_note::SequenceNoteFile;
pub use state_machine::Consumer;
pub use state_machine::HibernationState;
pub use state_machine::ImageStatus;
pub use state_machine::Origin;
pub use state_machine::Sleep;
pub use status::NextStart;
pub use status::Status;
pub use status::status;
pub use storage::FileChange;
pub use storage::HibernationFile;
pub use storage::Occupant;
pub use storage::RecordPlace;
pub use storage::Storage;
pub use storage::StorageError;
pub use storage::StorageErrorKind;
pub use storage::StoreChange;
pub use storage::StoreState;
pub use token::CorruptToken;
pub use token::TokenValue;
pub use token::decode_token;
