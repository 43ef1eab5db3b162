//! The firmware's log in memory, and how it gets into the host's log.

use crate::guest;
use crate::guest::NotRam;
use crate::log_text::MAX_TEXT;
use crate::log_text::printable;
use guest_memory::GuestMemory;
use minicbor::Decode;
use minicbor::Encode;
use uefi_specs::bios_device::DebugLevel;
use uefi_specs::bios_device::LogEntryHeader;
use uefi_specs::bios_device::LogHeader;
use uefi_specs::bios_device::LogPhase;
use zerocopy::FromBytes as _;

/// The longest log, in bytes.
const MAX_LOG: u32 = 4 << 20;

/// The most lines that reading the log once adds to the host's.
const MAX_LINES: usize = 1000;

/// Which lines of the firmware's log get into the host's.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum LogLevel {
    /// Errors and warnings.
    #[default]
    #[n(1)]
    Default,
    /// Also information.
    #[n(2)]
    Info,
    /// Everything.
    #[n(3)]
    Full,
}

impl LogLevel {
    /// This level, with information at least.
    pub(crate) fn with_info(self) -> Self {
        match self {
            Self::Default => Self::Info,
            level => level,
        }
    }

    fn includes(self, level: DebugLevel) -> bool {
        let mask = match self {
            Self::Default => DebugLevel::ERROR.0 | DebugLevel::WARN.0,
            Self::Info => DebugLevel::ERROR.0 | DebugLevel::WARN.0 | DebugLevel::INFO.0,
            Self::Full => u32::MAX,
        };
        level.0 & mask != 0 || self == Self::Full
    }
}

/// Why the log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogError {
    NotRam,
    /// It has another signature.
    Signature,
    /// Its sizes contradict each other, or are too large.
    Sizes,
}

impl From<NotRam> for LogError {
    fn from(_: NotRam) -> Self {
        Self::NotRam
    }
}

/// A line of the firmware's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub level: DebugLevel,
    pub phase: LogPhase,
    /// In units of 100 ns.
    pub timestamp: u64,
    pub text: String,
}

/// What is in the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub lines: Vec<Line>,
    /// How many more there are.
    pub suppressed: usize,
    /// Bytes that the firmware had no room for.
    pub discarded: u32,
    /// Whether an entry is malformed. What follows it cannot be read.
    pub is_malformed: bool,
}

/// Reads the log at `gpa`: the last lines of `level`.
pub(crate) fn read(memory: &GuestMemory, gpa: u32, level: LogLevel) -> Result<Lines, LogError> {
    let header: LogHeader = guest::read(memory, gpa.into())?;
    if header.signature != LogHeader::SIGNATURE {
        return Err(LogError::Signature);
    }
    let size = header.buffer_size.get();
    let (start, end) = (header.log_offset.get(), header.current_offset.get());
    let sizes = size_of::<LogHeader>() as u32..=MAX_LOG;
    if !sizes.contains(&size) || start >= size || end > size || start > end {
        return Err(LogError::Sizes);
    }
    let at = u64::from(gpa) + u64::from(start);
    // At most MAX_LOG.
    let entries = guest::read_bytes(memory, at, (end - start) as usize)?;
    let mut lines = parse(&entries, level);
    lines.discarded = header.discarded.get();
    Ok(lines)
}

fn parse(mut entries: &[u8], level: LogLevel) -> Lines {
    let mut collector = Collector::new(level);
    let mut is_malformed = false;
    while !entries.is_empty() {
        let Some((header, text, len)) = decode(entries) else {
            is_malformed = true;
            break;
        };
        collector.add(&header, text);
        entries = entries.get(len..).unwrap_or_default();
    }
    Lines {
        is_malformed,
        ..collector.finish()
    }
}

/// The first entry, its text, and the distance to the next one, which is not 0.
fn decode(entries: &[u8]) -> Option<(LogEntryHeader, &[u8], usize)> {
    let (header, _) = LogEntryHeader::read_from_prefix(entries).ok()?;
    let start = usize::from(header.text_offset.get());
    let len = usize::from(header.text_len.get());
    if header.signature != LogEntryHeader::SIGNATURE
        || start < size_of::<LogEntryHeader>()
        || len > MAX_TEXT
    {
        return None;
    }
    let text = entries.get(start..start + len)?;
    Some((header, text, (start + len).next_multiple_of(8)))
}

/// Puts together lines, which the firmware splits as it likes.
struct Collector {
    level: LogLevel,
    lines: std::collections::VecDeque<Line>,
    suppressed: usize,
    /// The line that is not complete, with the header of its first part.
    part: Option<(LogEntryHeader, Vec<u8>)>,
}

impl Collector {
    fn new(level: LogLevel) -> Self {
        Self {
            level,
            lines: std::collections::VecDeque::new(),
            suppressed: 0,
            part: None,
        }
    }

    fn add(&mut self, header: &LogEntryHeader, text: &[u8]) {
        // A line has one level: a part of another one starts a line.
        if let Some((first, _)) = &self.part
            && first.level != header.level
        {
            self.complete();
        }
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            let (_, part) = self.part.get_or_insert_with(|| (*header, Vec::new()));
            part.extend(piece);
            if piece.ends_with(b"\n") || part.len() >= MAX_TEXT {
                self.complete();
            }
        }
    }

    fn complete(&mut self) {
        let Some((header, text)) = self.part.take() else {
            return;
        };
        let level = DebugLevel(header.level.get());
        if !self.level.includes(level) {
            return;
        }
        let text = printable(&String::from_utf8_lossy(&text));
        if text.is_empty() {
            return;
        }
        if self.lines.len() == MAX_LINES {
            // The last lines tell where the firmware got to.
            self.lines.pop_front();
            self.suppressed += 1;
        }
        self.lines.push_back(Line {
            level,
            phase: LogPhase(header.phase.get()),
            timestamp: header.timestamp.get(),
            text,
        });
    }

    fn finish(mut self) -> Lines {
        self.complete();
        Lines {
            lines: self.lines.into(),
            suppressed: self.suppressed,
            ..Lines::default()
        }
    }
}

/// Writes the lines to the host's log.
pub(crate) fn log(lines: &Lines) {
    for line in &lines.lines {
        let (phase, text) = (line.phase.name(), &line.text);
        let microseconds = line.timestamp / 10;
        if line.level.0 & DebugLevel::ERROR.0 != 0 {
            tracing::error!(target: "uefi", phase, microseconds, "{text}");
        } else if line.level.0 & DebugLevel::WARN.0 != 0 {
            tracing::warn!(target: "uefi", phase, microseconds, "{text}");
        } else {
            tracing::info!(target: "uefi", phase, microseconds, "{text}");
        }
    }
    let Lines {
        suppressed,
        discarded,
        is_malformed,
        ..
    } = *lines;
    if suppressed > 0 || discarded > 0 || is_malformed {
        tracing::warn!(
            suppressed,
            discarded,
            is_malformed,
            "the UEFI firmware's log is not complete"
        );
    }
}

#[cfg(test)]
#[path = "diagnostics_test.rs"]
mod tests;
