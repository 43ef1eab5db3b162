//! The token, as it is found in a store.

use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use serde::Serialize;
use std::fmt;
use vmgs_format::HIBERNATION_TOKEN_LEN;
use vmgs_format::HibernationToken;

/// What reading the token came to.
#[derive(Debug)]
pub enum TokenOutcome {
    /// There is none: the guest did not hibernate, or has woken since.
    Missing,
    /// There is one, and it is well-formed.
    Found(TokenValue),
    /// There is something that is no token.
    Corrupt(CorruptToken),
    /// There may be one, but it could not be read.
    Unreadable(StorageError),
}

/// What a well-formed token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenValue {
    /// The guest did not hibernate.
    NotHibernated,
    /// The guest hibernated; its firmware was not stored.
    NotStored,
    /// The guest hibernated, and its firmware is stored.
    Stored,
    /// Other software recorded that the guest hibernated under a firmware of this version. The
    /// firmware itself is not stored.
    Version {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
}

impl fmt::Display for TokenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHibernated => f.write_str("not hibernated"),
            Self::NotStored => f.write_str("hibernated, firmware not stored"),
            Self::Stored => f.write_str("hibernated, firmware stored"),
            Self::Version { major, minor } => write!(
                f,
                "hibernated by other software under firmware {major}.{minor}, firmware not stored"
            ),
        }
    }
}

/// Why the bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CorruptToken {
    /// Their number is wrong.
    #[error("it has {0} bytes instead of 8")]
    Length(u64),
    /// Their value is unknown.
    #[error("its value {0:#x} is unknown")]
    Value(u64),
    /// The store has lost them.
    #[error("the store says that it is damaged")]
    Damaged,
}

/// The bytes of a token.
pub(crate) fn encode(stored: bool) -> [u8; HIBERNATION_TOKEN_LEN] {
    if stored {
        HibernationToken::HIBERNATED_WITH_IMAGE.to_bytes()
    } else {
        HibernationToken::HIBERNATED.to_bytes()
    }
}

/// What the bytes of a token say.
pub fn decode_token(bytes: &[u8]) -> Result<TokenValue, CorruptToken> {
    let token =
        HibernationToken::from_bytes(bytes).ok_or(CorruptToken::Length(bytes.len() as u64))?;
    match (token, token.firmware_version()) {
        (HibernationToken::NONE, _) => Ok(TokenValue::NotHibernated),
        (HibernationToken::HIBERNATED, _) => Ok(TokenValue::NotStored),
        (HibernationToken::HIBERNATED_WITH_IMAGE, _) => Ok(TokenValue::Stored),
        (_, Some((major, minor))) => Ok(TokenValue::Version { major, minor }),
        _ => Err(CorruptToken::Value(token.0)),
    }
}

/// Reads the token.
pub(crate) fn read(storage: &mut dyn Storage) -> TokenOutcome {
    use crate::storage::StorageErrorKind;
    let result = storage.len(HibernationFile::Token).and_then(|len| {
        Ok(match len {
            None => None,
            // A token of another length is not read to find that out.
            Some(len) if len != HIBERNATION_TOKEN_LEN as u64 => {
                Some(Err(CorruptToken::Length(len)))
            }
            Some(_) => Some(decode_token(
                &storage.read_start(HibernationFile::Token, HIBERNATION_TOKEN_LEN)?,
            )),
        })
    });
    match result {
        Ok(None) => TokenOutcome::Missing,
        Ok(Some(Ok(value))) => TokenOutcome::Found(value),
        Ok(Some(Err(corrupt))) => TokenOutcome::Corrupt(corrupt),
        Err(error) if error.kind == StorageErrorKind::Corrupt => {
            tracing::warn!(error = %error, "the hibernation token is damaged");
            TokenOutcome::Corrupt(CorruptToken::Damaged)
        }
        Err(error) => TokenOutcome::Unreadable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_meaning() {
        let decode = |raw: u64| decode_token(&raw.to_le_bytes());
        assert_eq!(decode(0), Ok(TokenValue::NotHibernated));
        assert_eq!(decode(1), Ok(TokenValue::NotStored));
        assert_eq!(decode(u64::MAX), Ok(TokenValue::Stored));
        let version = |major, minor| Ok(TokenValue::Version { major, minor });
        assert_eq!(decode(0x0100), version(1, 0));
        assert_eq!(decode(0xffff), version(255, 255));
        assert_eq!(decode(0x1_0000), Err(CorruptToken::Value(0x1_0000)));
        assert_eq!(decode(u64::MAX - 1), Err(CorruptToken::Value(u64::MAX - 1)));
        for len in [0, 3, 7, 9, 16] {
            assert_eq!(
                decode_token(&vec![0xff; len]),
                Err(CorruptToken::Length(len as u64))
            );
        }
        assert_eq!(decode_token(&encode(true)), Ok(TokenValue::Stored));
        assert_eq!(decode_token(&encode(false)), Ok(TokenValue::NotStored));
    }
}
