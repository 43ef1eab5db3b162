//! Why bytes are not a message.

/// How deep maps, arrays and tags may nest in a message.
///
/// A struct is one level, an enum at most two more. A message inside a byte string starts at zero again.
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
        /// Number of bytes after the message.
        count: usize,
    },
    /// The message nests deeper than [`MAX_DEPTH`](crate::payload::MAX_DEPTH).
    #[error("the message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
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

/// The field number in minicbor's report of a missing value, which has it only in its text.
///
/// A test compares the text with the version of minicbor in use.
fn missing_field(text: &str) -> Option<u64> {
    let rest = text.strip_prefix("missing value at index ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}
