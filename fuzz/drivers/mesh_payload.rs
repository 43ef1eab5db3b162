//! Decodes arbitrary bytes. Shared by the fuzz target and a test that runs it on a few seeds.

use mesh::payload;
use minicbor::Decode;
use minicbor::Encode;
use state_unit::SavedUnits;
use std::collections::BTreeMap;

/// A field of each kind that messages have.
#[derive(Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Message {
    /// Required.
    #[n(1)]
    pub(crate) number: u64,
    /// May be absent.
    #[n(2)]
    pub(crate) optional: Option<i32>,
    /// Bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) bytes: Vec<u8>,
    /// Bytes of fixed number.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(crate) array: [u8; 4],
    /// A collection.
    #[n(5)]
    pub(crate) list: Vec<u16>,
    /// A collection with keys.
    #[n(6)]
    pub(crate) map: BTreeMap<String, bool>,
    /// An enum.
    #[n(7)]
    pub(crate) kind: Kind,
    /// Itself.
    #[n(8)]
    pub(crate) next: Option<Box<Message>>,
    /// Added later.
    #[cbor(n(9), default)]
    pub(crate) late: u8,
}

/// A variant of each kind.
#[derive(Debug, Default, PartialEq, Encode, Decode)]
pub(crate) enum Kind {
    /// No fields.
    #[n(0)]
    #[default]
    Unit,
    /// Numbered fields.
    #[n(1)]
    #[cbor(map)]
    Fields {
        /// Required.
        #[n(1)]
        text: String,
        /// May be absent.
        #[n(2)]
        optional: Option<u8>,
    },
}

/// Decodes `data` as a message and as saved units. What was decoded must be the same after encoding and decoding again.
///
/// Returns whether it could be decoded as a message, and as saved units.
pub(crate) fn run(data: &[u8]) -> (bool, bool) {
    let message = payload::decode::<Message>(data);
    if let Ok(message) = &message {
        let again = payload::decode::<Message>(&payload::encode(message));
        assert_eq!(again.as_ref(), Ok(message));
    }
    let saved = SavedUnits::decode(data);
    if let Ok(saved) = &saved {
        assert_eq!(SavedUnits::decode(&saved.encode()).as_ref(), Ok(saved));
        for unit in saved.units() {
            // A unit's state can be any bytes.
            let _ = unit.state.decode::<Message>();
        }
    }
    (message.is_ok(), saved.is_ok())
}
