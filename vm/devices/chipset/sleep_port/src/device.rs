use crate::SleepAnnouncement;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;
use std::sync::Arc;

/// Receives announcements.
#[derive(Clone)]
pub struct AnnouncementSink(Arc<dyn Fn(SleepAnnouncement) + Send + Sync>);

impl AnnouncementSink {
    /// Calls `receive` for each announcement, on the VP's thread and with the device locked. The guest continues when
    /// it returns, so `receive` does what must be done before the guest's next instruction.
    pub fn new(receive: impl Fn(SleepAnnouncement) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }
}

/// An I/O port of one byte to which the `_PTS` and `_WAK` methods of the machine's ACPI tables write
/// ([`SleepAnnouncement::to_byte`]). Other values are rejected.
///
/// It reads as [`SleepPort::PRESENT`]; a port without a device reads 0xFF.
pub struct SleepPort {
    port: u16,
    sink: AnnouncementSink,
    /// The last announcement since the machine was reset.
    last: Option<SleepAnnouncement>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    /// The byte of the last announcement, or 0.
    #[n(1)]
    last: u8,
}

impl SleepPort {
    /// The port on this project's machines, between those of pvpanic (0x505) and fw_cfg (from 0x510).
    pub const DEFAULT_PORT: u16 = 0x506;

    /// The value that the port reads as: the version of its interface.
    pub const PRESENT: u8 = 1;

    /// The device at `port`. Announcements go to `sink`.
    pub fn new(port: u16, sink: AnnouncementSink) -> Self {
        Self {
            port,
            sink,
            last: None,
        }
    }
}

impl ChipsetDevice for SleepPort {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([self.port..=self.port])
    }

    fn read_port(&mut self, _port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        *value = Self::PRESENT;
        Ok(())
    }

    fn write_port(&mut self, _port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        let announcement = SleepAnnouncement::from_byte(*value).ok_or(IoError::InvalidValue)?;
        self.last = Some(announcement);
        (self.sink.0)(announcement);
        Ok(())
    }

    fn reset(&mut self) {
        self.last = None;
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let last = self.last.map_or(0, SleepAnnouncement::to_byte);
        Ok(SavedState::encode(&State { last }))
    }

    /// The restored announcement does not go to the sink.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let State { last } = state.decode()?;
        let announcement = SleepAnnouncement::from_byte(last);
        if announcement.is_none() && last != 0 {
            let text = format!("invalid sleep announcement {last:#04x}");
            return Err(RestoreError::Invalid(text));
        }
        self.last = announcement;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "port": format!("{:#x}", self.port),
            "last": self.last.map(|last| last.to_string()),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
