use chipset_device::ChipsetDevice;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// A device of the chipset, to be driven through its life. Cheap to clone; each call locks the device.
#[derive(Clone)]
pub struct DeviceHandle {
    name: Arc<str>,
    device: Arc<Mutex<dyn ChipsetDevice>>,
    /// Changes only under the device's lock.
    running: Arc<AtomicBool>,
}

impl DeviceHandle {
    pub(crate) fn new(name: Arc<str>, device: Arc<Mutex<dyn ChipsetDevice>>) -> Self {
        Self {
            name,
            device,
            running: Arc::default(),
        }
    }

    /// The name it was added under, unique in its chipset.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// VPs are about to run. The device is polled too, for what happened while it was stopped.
    pub fn start(&mut self) {
        let mut device = self.device.lock();
        device.start();
        self.running.store(true, Ordering::Relaxed);
        device.poll();
    }

    /// VPs have stopped. Until the next start, wake-ups of the device have no effect on it.
    pub fn stop(&mut self) {
        let mut device = self.device.lock();
        self.running.store(false, Ordering::Relaxed);
        device.stop();
    }

    /// Returns the device to its power-on state.
    pub fn reset(&mut self) {
        self.device.lock().reset();
    }

    /// The device's state. The device must be stopped.
    pub fn save(&mut self) -> Result<SavedState, SaveError> {
        self.device.lock().save()
    }

    /// Gives the device a saved state. The device must be stopped; on an error it is as it was.
    pub fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.device.lock().restore(state)
    }

    /// What a person debugging the guest wants to see.
    pub fn inspect(&self) -> serde_json::Value {
        self.device.lock().inspect()
    }

    pub(crate) fn device(&self) -> &Mutex<dyn ChipsetDevice> {
        &self.device
    }

    /// A function that polls the device while it is started, and does not keep it alive.
    pub(crate) fn poller(&self) -> impl Fn() + Send + Sync + 'static {
        let device: Weak<Mutex<dyn ChipsetDevice>> = Arc::downgrade(&self.device);
        let running = self.running.clone();
        move || {
            if let Some(device) = device.upgrade() {
                let mut device = device.lock();
                if running.load(Ordering::Relaxed) {
                    device.poll();
                }
            }
        }
    }
}

impl std::fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceHandle")
            .field("name", &self.name)
            .field("running", &self.running.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
