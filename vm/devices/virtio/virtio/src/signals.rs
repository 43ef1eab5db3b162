//! What a device tells its driver outside of the queues.

use log_limit::LogLimit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// How a transport interrupts the driver. Called on any thread.
pub trait InterruptSink: Send + Sync {
    /// Interrupts for used buffers in queue `index`.
    fn queue(&self, index: u16);

    /// Interrupts for a change of the device's configuration or status.
    fn config(&self);
}

/// The interrupts and the status of a device, shared by its transport and its device type. Cheap to clone.
#[derive(Clone)]
pub struct DeviceSignals(Arc<Shared>);

struct Shared {
    name: String,
    sink: Box<dyn InterruptSink>,
    needs_reset: AtomicBool,
    generation: AtomicU8,
    faults: AtomicU32,
    fault_log: LogLimit,
}

impl DeviceSignals {
    /// Creates the signals of a device; `name` identifies it in logs.
    pub fn new(name: impl Into<String>, sink: impl InterruptSink + 'static) -> Self {
        Self(Arc::new(Shared {
            name: name.into(),
            sink: Box::new(sink),
            needs_reset: AtomicBool::new(false),
            generation: AtomicU8::new(0),
            faults: AtomicU32::new(0),
            fault_log: LogLimit::new(),
        }))
    }

    /// Tells the driver that the device's configuration changed.
    pub fn config_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.sink.config();
    }

    /// The device cannot continue because of `error`, mostly a violation of the protocol by the driver. The driver
    /// sees DEVICE_NEEDS_RESET (2.1.2), and the device works again after a reset.
    pub fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        let device = self.0.name.as_str();
        self.0.faults.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.0.fault_log.allow() {
            tracing::warn!(
                device,
                error,
                suppressed,
                "the device needs a reset by its driver"
            );
        }
        self.0.needs_reset.store(true, Ordering::Release);
        self.0.sink.config();
    }

    /// The name of the device in logs.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the device needs a reset.
    pub fn needs_reset(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    pub(crate) fn set_needs_reset(&self, needs_reset: bool) {
        self.0.needs_reset.store(needs_reset, Ordering::Release);
    }

    /// Changes whenever the configuration does.
    pub(crate) fn generation(&self) -> u8 {
        self.0.generation.load(Ordering::Acquire)
    }

    pub(crate) fn set_generation(&self, generation: u8) {
        self.0.generation.store(generation, Ordering::Release);
    }

    pub(crate) fn faults(&self) -> u32 {
        self.0.faults.load(Ordering::Relaxed)
    }

    pub(crate) fn queue(&self, index: u16) {
        self.0.sink.queue(index);
    }
}
