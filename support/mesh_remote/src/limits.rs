//! How much of a channel waits.

use std::num::NonZeroUsize;

/// Messages that wait on each side of a channel.
pub const QUEUE_LEN: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Requests of a channel that wait for their replies.
pub const MAX_REQUESTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
