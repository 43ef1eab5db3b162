use crate::description::MAX_TEXT_LEN;

/// Why structures cannot be built from a description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// A text that a structure cannot hold.
    #[error(
        "the {field} {text:?} is longer than {MAX_TEXT_LEN} bytes, or has characters other than printable ASCII"
    )]
    Text {
        /// What the text is.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// A machine has at least one processor socket, and at most as many as there are handles for.
    #[error("{count} processor sockets are none, or more than {limit}")]
    Processors {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A socket without cores, or with more cores than threads.
    #[error("a processor with {cores} cores and {threads} threads is impossible")]
    Cores {
        /// Cores in the socket.
        cores: u16,
        /// Threads in the socket.
        threads: u16,
    },
    /// A RAM range that is empty or not made of KiB.
    #[error("RAM at {start:#x}-{end:#x} is empty or not made of whole KiB")]
    MemoryRange {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// There are more RAM ranges than handles for them.
    #[error("{count} ranges of RAM are more than {limit}")]
    MemoryRanges {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No memory, or an amount that cannot be said.
    #[error("{size} bytes of memory are none, or no number of MiB that a structure can hold")]
    MemorySize {
        /// The sum of the ranges, in bytes.
        size: u64,
    },
}
