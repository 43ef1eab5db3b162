//! Firmware preservation: a hibernated guest wakes up on the firmware it went to sleep on.
//!
//! A guest that hibernates saves an image of itself that assumes the firmware of this start: where its
//! memory is, which tables it gave. If the host's firmware is another when the guest is to wake, the session
//! is lost. So at a cold start the firmware is [captured](Hibernation::capture) into the VM's VMGS store, a
//! hibernation leaves a token there, and a start that finds the token
//! [restores](Hibernation::restore_firmware) the firmware instead of loading the host's.
//!
//! [`Hibernation`] is what a VMM uses. In it, [`Machine`] decides and does nothing, and a driver does
//! what it says by way of small traits: [`Storage`] (a VMGS store or its broker), [`FirmwareImage`] and
//! [`FirmwareTarget`] (guest memory or flash), [`EventSink`], and [`WitnessPlace`]. Nothing here knows a
//! hypervisor or a command line.
//!
//! ```text
//!          start()            HostFirmware: load it ------------------------+
//!            |                                                              v
//!            +---> StartPlan  Capture: load it, then capture(image) ----> run() ... wake(), power_off(),
//!            |                                                              ^       reset(), hibernate()
//!            |                Restore: restore(target) ---------------------+
//!            v
//!         Refusal: the token stays
//! ```
#![forbid(unsafe_code)]

mod broker;
mod capture;
mod config;
mod event;
mod hibernation;
mod image;
mod look;
mod machine;
mod record;
mod refusal;
mod status;
mod storage;
mod token;
mod witness;

pub use broker::BrokerStorage;
pub use capture::CaptureError;
pub use config::Config;
pub use config::ConsumePolicy;
pub use config::IsolatedVm;
pub use config::Isolation;
pub use config::Mode;
pub use config::Override;
pub use config::TakeoverSignal;
pub use config::UnknownName;
pub use event::EventSink;
pub use event::HibernationEvent;
pub use event::Level;
pub use event::Stored;
pub use hibernation::Hibernation;
pub use hibernation::Inspection;
pub use hibernation::StartPlan;
pub use hibernation::StoredView;
pub use hibernation::TokenNotDurable;
pub use image::Architecture;
pub use image::EntryRule;
pub use image::FirmwareDescription;
pub use image::FirmwareImage;
pub use image::FirmwareTarget;
pub use image::ImagePart;
pub use image::MemoryImage;
pub use image::Pinned;
pub use image::RESET_VECTOR;
pub use image::TargetError;
pub use machine::Consumer;
pub use machine::Effect;
pub use machine::Event;
pub use machine::Found;
pub use machine::Image;
pub use machine::Machine;
pub use machine::Message;
pub use machine::Origin;
pub use machine::Outcome;
pub use machine::State;
pub use record::Collected;
pub use record::Collector;
pub use record::ImageId;
pub use record::ImageWriter;
pub use record::MAX_IMAGE_LEN;
pub use record::MAX_PINNED_LEN;
pub use record::MAX_SECTIONS;
pub use record::NewRecord;
pub use record::Record;
pub use record::RecordError;
pub use record::RecordInputError;
pub use record::RecordReader;
pub use record::RecordVisitor;
pub use record::Section;
pub use record::SectionKind;
pub use refusal::Refusal;
pub use refusal::RefusalReason;
pub use status::NextStart;
pub use status::Status;
pub use status::status;
pub use storage::Change;
pub use storage::FileChange;
pub use storage::HibernationFile;
pub use storage::Storage;
pub use storage::StorageError;
pub use storage::StorageErrorKind;
pub use storage::StoreState;
pub use token::CorruptToken;
pub use token::TokenOutcome;
pub use token::TokenValue;
pub use token::decode_token;
pub use witness::Note;
pub use witness::WitnessFile;
pub use witness::WitnessPlace;
