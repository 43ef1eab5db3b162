use chipset_device::ChipsetDevice;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use state_unit::ResetError;
use state_unit::StateUnit;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// A device of the chipset, as a state unit. Cheap to clone; each call locks the device.
#[derive(Clone)]
pub struct AttachedDevice {
    name: Arc<str>,
    device: Arc<Mutex<dyn ChipsetDevice>>,
    /// Changes only while the device is locked.
    running: Arc<AtomicBool>,
}

impl AttachedDevice {
    pub(crate) fn new(name: Arc<str>, device: Arc<Mutex<dyn ChipsetDevice>>) -> Self {
        Self {
            name,
            device,
            running: Arc::default(),
        }
    }

    /// The device's name, unique in its chipset.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn device(&self) -> &Mutex<dyn ChipsetDevice> {
        &self.device
    }

    /// Returns a function that polls the device while it is running. It does not keep the device alive.
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

impl StateUnit for AttachedDevice {
    /// Starts the device before VPs run, and polls it for what happened while it was stopped.
    fn start(&mut self) {
        let mut device = self.device.lock();
        device.start();
        self.running.store(true, Ordering::Relaxed);
        device.poll();
    }

    /// Stops the device after VPs have stopped. Until the next start, waking the device has no effect.
    fn stop(&mut self) {
        let mut device = self.device.lock();
        self.running.store(false, Ordering::Relaxed);
        device.stop();
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        self.device.lock().reset();
        Ok(())
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        self.device.lock().save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        self.device.lock().restore(state)
    }

    fn inspect(&self) -> serde_json::Value {
        self.device.lock().inspect()
    }
}
