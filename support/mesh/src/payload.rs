//! The numbered-field encoding.
//!
//! A message is a struct whose fields carry numbers (`#[derive(minicbor::Encode, minicbor::Decode)]`,
//! `#[cbor(map)]`, `#[n(1)]`…). On the wire it is a CBOR map from field number to value, so a reader
//! skips the fields it does not know and reports the required ones that are missing. A field may be
//! dropped or added as an `Option`; its number is never used again for something else.

use minicbor::Decode;
use minicbor::Encode;
use std::convert::Infallible;

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
    /// The bytes are not a valid encoding of the type.
    #[error("malformed message: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        if error.is_missing_value() {
            // The decoder keeps the number to itself except in its text.
            let text = error.to_string();
            let digits = text
                .chars()
                .skip_while(|c| !c.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect::<String>();
            match digits.parse() {
                Ok(field) => Self::MissingField { field },
                Err(_) => Self::Malformed(text),
            }
        } else if error.is_end_of_input() {
            Self::Truncated
        } else {
            Self::Malformed(error.to_string())
        }
    }
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
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    let count = bytes.len() - decoder.position();
    if count != 0 {
        return Err(DecodeError::TrailingBytes { count });
    }
    Ok(value)
}
