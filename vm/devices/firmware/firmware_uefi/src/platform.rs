//! What the device needs of its machine, and what it tells it.

use chipset::rtc::WallClock;
use chipset_device::DeviceWaker;
use chipset_device::LineInterrupt;
use chipset_device::MsiTarget;
use generation_id::GENERATION_ID_LEN;
use guest_memory::GuestMemory;
use parking_lot::Mutex;
use std::sync::Arc;
use uefi_specs::bios_device::BootDeviceStatus;
use vmtime::VmClock;

/// What the device needs of its machine.
pub struct Platform {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// The guest's clock, for the watchdog.
    pub clock: VmClock,
    /// The host's clock, for the time of day.
    pub wall: WallClock,
    /// The event that tells of a new generation ID.
    pub generation_event: LineInterrupt,
    /// Interrupts the boot processor when the watchdog expires.
    pub interrupts: Arc<dyn MsiTarget>,
    /// Hears of what happens to the firmware.
    pub reports: FirmwareReportSink,
    /// Makes the chipset poll the device.
    pub waker: DeviceWaker,
}

/// How the firmware's attempts to boot ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum BootOutcome {
    /// An operating system was loaded.
    Booted,
    /// There is no device to boot from.
    NoDevice,
    /// No device could be booted from; the last one ended so.
    Failed(BootDeviceStatus),
}

/// What happened to the firmware.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum FirmwareReport {
    /// The firmware has tried to boot.
    Boot {
        /// How that ended.
        outcome: BootOutcome,
        /// Whether Secure Boot refused an image.
        was_refused: bool,
    },
    /// The firmware handed over to an operating system: ExitBootServices was called, for the first time since the last
    /// reset.
    RuntimeHandoff,
    /// The firmware, or its boot loader, made no progress.
    WatchdogExpired,
}

/// Receives reports: an optional service of the machine. The device also logs them.
#[derive(Clone)]
pub struct FirmwareReportSink(Arc<dyn Fn(FirmwareReport) + Send + Sync>);

impl FirmwareReportSink {
    /// Calls `receive` for each report, with the device locked.
    pub fn new(receive: impl Fn(FirmwareReport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Receives nothing.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    pub(crate) fn report(&self, report: FirmwareReport) {
        (self.0)(report);
    }
}

/// What the host asks of the device: a service that the device offers.
///
/// Cheap to clone. It locks the device, so it must not be called while that is locked.
#[derive(Clone)]
pub struct FirmwareControl {
    pub(crate) requests: Arc<Mutex<Requests>>,
    pub(crate) waker: DeviceWaker,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) generation_id: Option<[u8; GENERATION_ID_LEN]>,
    pub(crate) read_log: bool,
}

impl FirmwareControl {
    /// Changes the generation ID, in the byte order of guest memory, and notifies the guest.
    pub fn change_generation_id(&self, id: [u8; GENERATION_ID_LEN]) {
        self.requests.lock().generation_id = Some(id);
        self.waker.wake();
    }

    /// Writes the firmware's log, as it is now, to the host's log.
    pub fn read_log(&self) {
        self.requests.lock().read_log = true;
        self.waker.wake();
    }
}
