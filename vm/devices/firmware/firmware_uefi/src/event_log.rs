//! The events that firmware reports in a channel.

use crate::guest;
use crate::guest::NotRam;
use crate::platform::BootOutcome;
use guest_memory::GuestMemory;
use uefi_specs::bios_device::BootDeviceEvent;
use uefi_specs::bios_device::BootDeviceStatus;
use uefi_specs::bios_device::EventChannelHeader;
use uefi_specs::bios_device::EventHeader;
use zerocopy::FromBytes as _;

/// What a channel says of booting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BootSummary {
    pub outcome: BootOutcome,
    /// Whether Secure Boot refused an image.
    pub was_refused: bool,
    /// How many devices were tried.
    pub attempts: usize,
}

/// Why a channel cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelError {
    NotRam,
    /// The channel's length is not one that firmware has.
    Length,
    /// The event at this byte is malformed.
    Event(usize),
}

impl From<NotRam> for ChannelError {
    fn from(_: NotRam) -> Self {
        Self::NotRam
    }
}

/// What the channel at `gpa` says of booting, if anything.
pub(crate) fn read(memory: &GuestMemory, gpa: u64) -> Result<Option<BootSummary>, ChannelError> {
    let header: EventChannelHeader = guest::read(memory, gpa)?;
    let len = header.data_size.get();
    let lengths = EventChannelHeader::MIN_DATA_SIZE..=EventChannelHeader::MAX_DATA_SIZE;
    if !lengths.contains(&len) {
        return Err(ChannelError::Length);
    }
    let start = gpa + size_of::<EventChannelHeader>() as u64;
    let events = guest::read_bytes(memory, start, len as usize)?;
    summarize(&events)
}

fn summarize(events: &[u8]) -> Result<Option<BootSummary>, ChannelError> {
    let mut statuses = Vec::new();
    let mut at = 0;
    while at < events.len() {
        let (event, len) = decode(&events[at..]).ok_or(ChannelError::Event(at))?;
        statuses.extend(event);
        at += len;
    }
    let Some(last) = statuses.last() else {
        return Ok(None);
    };
    let outcome = if statuses.contains(&BootDeviceStatus::NO_DEVICES) {
        BootOutcome::NoDevice
    } else if statuses.contains(&BootDeviceStatus::OS_LOADED) {
        BootOutcome::Booted
    } else {
        BootOutcome::Failed(*last)
    };
    Ok(Some(BootSummary {
        outcome,
        was_refused: statuses.iter().any(|s| s.is_secure_boot_failure()),
        attempts: statuses.len(),
    }))
}

/// The status of a boot device, if the first event is one, and the event's length, which is not 0.
fn decode(events: &[u8]) -> Option<(Option<BootDeviceStatus>, usize)> {
    let (header, _) = EventHeader::read_from_prefix(events).ok()?;
    let header_size = usize::try_from(header.header_size.get()).ok()?;
    let data_size = usize::try_from(header.data_size.get()).ok()?;
    if header_size < EventHeader::SIZE {
        return None;
    }
    let len = header_size.checked_add(data_size)?;
    let data = events.get(header_size..len)?;
    if header.id.get() != BootDeviceEvent::ID {
        return Some((None, len));
    }
    let (event, _) = BootDeviceEvent::read_from_prefix(data).ok()?;
    Some((Some(BootDeviceStatus(event.status.get())), len))
}

#[cfg(test)]
#[path = "event_log_test.rs"]
mod tests;
