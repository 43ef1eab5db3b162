//! The numbered-field encoding.
//!
//! A message is a struct whose fields carry numbers. On the wire it is a CBOR map (RFC 8949) from
//! field number to value, so a reader skips the fields it does not know and reports the required ones
//! that are missing.
//!
//! ```
//! use mesh::payload;
//!
//! #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
//! #[cbor(map)]
//! struct TimerState {
//!     /// Required: a message without it does not decode.
//!     #[n(1)]
//!     count: u64,
//!     /// Absent when `None`.
//!     #[n(2)]
//!     deadline_ns: Option<u64>,
//!     /// Bytes, not an array of numbers: a fifth of the size, and copied in one go.
//!     #[cbor(n(3), with = "minicbor::bytes")]
//!     fifo: Vec<u8>,
//!     /// Zero when absent: how to add a field that older messages lack.
//!     #[cbor(n(4), default)]
//!     overruns: u32,
//!     #[n(5)]
//!     mode: Mode,
//! }
//!
//! #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
//! enum Mode {
//!     #[n(0)]
//!     OneShot,
//!     #[n(1)]
//!     #[cbor(map)]
//!     Periodic {
//!         #[n(1)]
//!         period_ns: u64,
//!     },
//! }
//!
//! let state = TimerState {
//!     count: 7,
//!     deadline_ns: None,
//!     fifo: vec![1, 2, 3],
//!     overruns: 0,
//!     mode: Mode::Periodic { period_ns: 1000 },
//! };
//! let bytes = payload::encode(&state);
//! assert_eq!(payload::decode::<TimerState>(&bytes), Ok(state));
//! ```
//!
//! # Rules for messages
//!
//! - Say `#[cbor(map)]` on every struct and on every variant with fields; without it the derive
//!   encodes an array, in which a field cannot be left out.
//! - A field may be dropped, and one may be added as an `Option` or with `default`. Its number is
//!   never used again for something else, and its type never changes.
//! - A field that occurs twice has its last value.
//! - In an `Option<Enum>` field a variant the reader does not know reads as `None`; in any other field
//!   it is an error. An enum that a saved state depends on is therefore no `Option`.
//! - `#[cbor(index_only)]` enums do not go into an `Option`: the decoder loses its place after a variant
//!   it does not know, and the whole message is refused.
//!
//! # Hostile input
//!
//! [`decode`] first checks the structure of the whole message without recursion: every claimed length
//! fits in the bytes that are there, nothing is of indefinite length, and nesting ends at
//! [`MAX_DEPTH`]. Collections then grow as their elements arrive, and byte strings are copied only when
//! they are there in full. What is left to the author of a message is that an element may be one byte
//! on the wire and `size_of::<T>()` in memory: bound the length of the input where it is read.

use crate::wellformed;
use minicbor::Decode;
use minicbor::Encode;
use std::convert::Infallible;

/// How deep maps, arrays and tags may nest in a message.
///
/// A struct is one level, an enum two more at most. A message inside a byte string starts anew.
pub const MAX_DEPTH: usize = 64;

/// Why bytes are not a message of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A required field is absent.
    #[error("required field {field} is missing")]
    MissingField {
        /// The field's number.
        field: u64,
    },
    /// The message ended early.
    #[error("the message is truncated")]
    Truncated,
    /// The message ended, and more bytes follow it.
    #[error("{count} bytes follow the message")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The message nests deeper than any that is encoded.
    #[error("the message nests deeper than {limit} levels")]
    TooDeep {
        /// [`MAX_DEPTH`].
        limit: usize,
    },
    /// The bytes are not a valid encoding of the type.
    #[error("malformed message: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        if error.is_missing_value() {
            let text = error.to_string();
            match missing_field(&text) {
                Some(field) => Self::MissingField { field },
                None => Self::Malformed(text),
            }
        } else if error.is_end_of_input() {
            Self::Truncated
        } else {
            Self::Malformed(error.to_string())
        }
    }
}

/// The field number in the decoder's report of a missing value, which has it in its text only.
///
/// Tests hold the text against the version of the decoder in use.
fn missing_field(text: &str) -> Option<u64> {
    let rest = text.strip_prefix("missing value at index ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Encodes `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result: Result<(), minicbor::encode::Error<Infallible>> =
        minicbor::encode(value, &mut bytes);
    // Writing to a Vec is infallible, and the derived impls add no errors of their own.
    debug_assert!(result.is_ok(), "encoding failed: {result:?}");
    bytes
}

/// Decodes exactly one value from `bytes`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let len = wellformed::item_len(bytes)?;
    if len != bytes.len() {
        return Err(DecodeError::TrailingBytes {
            count: bytes.len() - len,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    // The bytes are one whole item, so a decoder that stops elsewhere than at their end lost its place.
    match decoder.decode() {
        Ok(value) if decoder.position() == len => Ok(value),
        Ok(_) => Err(DecodeError::Malformed(format!(
            "decoding ended at byte {} of {len}",
            decoder.position()
        ))),
        Err(error) if error.is_end_of_input() => Err(DecodeError::Malformed(format!(
            "decoding ran past the end at byte {len}"
        ))),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "payload_test.rs"]
mod tests;
