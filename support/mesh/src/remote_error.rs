//! Errors as messages.

use minicbor::Decode;
use minicbor::Encode;
use std::error::Error;

/// Most causes that are kept of an error.
const MAX_CAUSES: usize = 16;

/// An error that may have happened in another process: its text, and those of its causes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{text}")]
pub struct RemoteError {
    #[n(1)]
    text: String,
    #[n(2)]
    source: Option<Box<RemoteError>>,
}

impl RemoteError {
    /// Takes the texts of `error` and of its causes.
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        let mut texts = Vec::new();
        let mut next = Some(error);
        while let Some(cause) = next
            && texts.len() <= MAX_CAUSES
        {
            texts.push(cause.to_string());
            next = cause.source();
        }
        let mut innermost = Self::from(texts.pop().unwrap_or_default());
        while let Some(text) = texts.pop() {
            innermost = Self {
                text,
                source: Some(Box::new(innermost)),
            };
        }
        innermost
    }
}

impl From<String> for RemoteError {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot parse {text}")]
    struct ParseError {
        text: String,
        source: std::num::ParseIntError,
    }

    #[test]
    fn an_error_arrives_with_its_causes() {
        let source = "x".parse::<u32>().unwrap_err();
        let text = "x".to_owned();
        let error = RemoteError::new(&ParseError { text, source });
        let received: RemoteError = payload::decode(&payload::encode(&error)).unwrap();
        assert_eq!(received, error);
        assert_eq!(received.to_string(), "cannot parse x");
        let cause = received.source().unwrap();
        assert_eq!(cause.to_string(), "invalid digit found in string");
        assert!(cause.source().is_none());
    }

    #[test]
    fn a_long_chain_of_causes_is_cut() {
        #[derive(Debug, thiserror::Error)]
        #[error("level {0}")]
        struct Level(u32, #[source] Option<Box<Level>>);
        let error = (0..100).fold(Level(0, None), |cause, n| Level(n, Some(Box::new(cause))));
        let error = RemoteError::new(&error);
        assert_eq!(error.to_string(), "level 99");
        assert_eq!(
            payload::decode::<RemoteError>(&payload::encode(&error)),
            Ok(error)
        );
    }
}
