//! The hibernation token: reading, writing and deleting it.

use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use serde::Serialize;
use std::fmt;
use std::io;
use std::time::Duration;
use vmgs_format::HIBERNATION_TOKEN_LEN;
use vmgs_format::HibernationToken;

/// The result of reading the token.
#[derive(Debug)]
pub(crate) enum TokenOutcome {
    /// There is none: the guest did not hibernate, or it has resumed since.
    Missing,
    /// There is a valid one.
    Found(TokenValue),
    /// The file is not a valid token.
    Corrupt(CorruptToken),
    /// The file could not be read.
    Unreadable(StorageError),
}

/// The value of a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenValue {
    /// The guest did not hibernate.
    NotHibernated,
    /// The guest hibernated and its firmware was not stored.
    NotStored,
    /// The guest hibernated and its firmware is stored.
    Stored,
    /// The guest began to hibernate and its firmware is stored. Whether it finished is not known.
    Preparing,
    /// Other software recorded that the guest hibernated under firmware of this version, which is not stored.
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
            Self::Preparing => f.write_str("may be hibernated, firmware stored"),
            Self::Version { major, minor } => write!(
                f,
                "hibernated by other software under firmware {major}.{minor}, firmware not stored"
            ),
        }
    }
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CorruptToken {
    /// Its length is wrong.
    #[error("it has {0} bytes instead of 8")]
    Length(u64),
    /// Its value is unknown.
    #[error("its value {0:#x} is unknown")]
    Value(u64),
    /// The store reports damage.
    #[error("the store reports that it is damaged")]
    Damaged,
}

/// Decodes a token.
pub fn decode_token(bytes: &[u8]) -> Result<TokenValue, CorruptToken> {
    let token =
        HibernationToken::from_bytes(bytes).ok_or(CorruptToken::Length(bytes.len() as u64))?;
    match (token, token.firmware_version()) {
        (HibernationToken::NONE, _) => Ok(TokenValue::NotHibernated),
        (HibernationToken::HIBERNATED, _) => Ok(TokenValue::NotStored),
        (HibernationToken::HIBERNATED_WITH_IMAGE, _) => Ok(TokenValue::Stored),
        (HibernationToken::PREPARING, _) => Ok(TokenValue::Preparing),
        (_, Some((major, minor))) => Ok(TokenValue::Version { major, minor }),
        _ => Err(CorruptToken::Value(token.0)),
    }
}

/// Reads the token from a store.
pub(crate) fn read(storage: &mut dyn Storage) -> TokenOutcome {
    let result = storage.len(HibernationFile::Token).and_then(|len| {
        Ok(match len {
            None => None,
            // A token of another length is not read.
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

/// How long to wait before the token is written again after a failure: a full file system or a failing disk may recover.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// Makes a token durable that says that the guest hibernated, and whether its firmware is `stored`. If the token is
/// there already, it is not written again. On failure also returns the number of attempts.
pub(crate) fn write(storage: &mut dyn Storage, stored: bool) -> Result<(), (u32, StorageError)> {
    let (value, token) = if stored {
        (TokenValue::Stored, HibernationToken::HIBERNATED_WITH_IMAGE)
    } else {
        (TokenValue::NotStored, HibernationToken::HIBERNATED)
    };
    let mut pauses = RETRY_AFTER.iter();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let change = match read(storage) {
            // A session that started from this token and did not consume it needs no other. But it may be one that an
            // earlier attempt left in a cache, which the empty change makes durable.
            TokenOutcome::Found(found) if found == value => FileChange::Keep,
            _ => content(token),
        };
        let error = match storage.commit(StoreChange::of_token(change)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let may_pass = matches!(
            error.kind,
            StorageErrorKind::Io | StorageErrorKind::NoSpace | StorageErrorKind::DiskFull
        );
        match pauses.next() {
            Some(pause) if may_pass => {
                tracing::warn!(%error, attempts, "writing the hibernation token failed, trying again");
                std::thread::sleep(*pause);
            }
            _ => return Err((attempts, error)),
        }
    }
}

/// Makes durable that the guest may be about to hibernate, with stored firmware. If the store says so already, it is not
/// written again.
pub(crate) fn prepare(storage: &mut dyn Storage) -> Result<(), StorageError> {
    let change = match read(storage) {
        TokenOutcome::Found(TokenValue::Stored | TokenValue::Preparing) => FileChange::Keep,
        _ => content(HibernationToken::PREPARING),
    };
    storage.commit(StoreChange::of_token(change))
}

fn content(token: HibernationToken) -> FileChange {
    let bytes = token.to_bytes();
    FileChange::Write {
        len: bytes.len() as u64,
        source: Box::new(io::Cursor::new(bytes)),
    }
}

/// Deletes the token, if there is one that says that the guest hibernated or that is not valid. Returns whether
/// there was.
pub(crate) fn delete(storage: &mut dyn Storage) -> Result<bool, StorageError> {
    if matches!(
        read(storage),
        TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated)
    ) {
        return Ok(false);
    }
    storage.commit(StoreChange::of_token(FileChange::Delete))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let decode = |raw: u64| decode_token(&raw.to_le_bytes());
        assert_eq!(decode(0), Ok(TokenValue::NotHibernated));
        assert_eq!(decode(1), Ok(TokenValue::NotStored));
        assert_eq!(decode(u64::MAX), Ok(TokenValue::Stored));
        assert_eq!(decode_token(b"HIBPREP1"), Ok(TokenValue::Preparing));
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
    }
}
