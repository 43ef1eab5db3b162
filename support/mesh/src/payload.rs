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
//!   it is an error. So do not make an `Option` of an enum that a saved state depends on.
//! - Do not put a `#[cbor(index_only)]` enum into an `Option`: the decoder loses its place after a variant
//!   that it does not know, and the whole message is refused.
//!
//! # Hostile input
//!
//! [`decode`] first checks the structure of the whole message without recursion: every claimed length
//! fits in the bytes that are there, nothing is of indefinite length, and nesting ends at
//! [`MAX_DEPTH`]. Collections then grow as their elements arrive, and byte strings are copied only when
//! they are there in full. An element may be one byte on the wire and `size_of::<T>()` in memory, so whoever
//! reads the input bounds its length.

pub use crate::decode_error::DecodeError;
pub use crate::decode_error::MAX_DEPTH;
use crate::wellformed;
use minicbor::Decode;
use minicbor::Encode;

/// Encodes `value`.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    encode_with(value, &mut ())
}

/// Encodes `value`, whose fields leave in `context` what is not bytes.
pub(crate) fn encode_with<C, T: Encode<C>>(value: &T, context: &mut C) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result = minicbor::encode_with(value, &mut bytes, context);
    // Writing to a Vec is infallible, and the derived impls add no errors of their own.
    debug_assert!(result.is_ok(), "encoding failed: {result:?}");
    bytes
}

/// Decodes exactly one value from `bytes`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    decode_with(bytes, &mut ())
}

/// Decodes exactly one value from `bytes`, whose fields find in `context` what is not bytes.
pub(crate) fn decode_with<'b, C, T: Decode<'b, C>>(
    bytes: &'b [u8],
    context: &mut C,
) -> Result<T, DecodeError> {
    let len = wellformed::item_len(bytes)?;
    if len != bytes.len() {
        return Err(DecodeError::TrailingBytes {
            count: bytes.len() - len,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    // The bytes are one whole item, so a decoder that stops before their end lost its place.
    match decoder.decode_with(context) {
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
