use std::sync::Arc;
use std::sync::OnceLock;

type Poll = Box<dyn Fn() + Send + Sync>;

/// Makes the chipset call a device's `poll`, from any thread.
///
/// Passed to a device's constructor and connected once the device is built; until then it has no effect. It locks
/// the device, so it must not be called from inside one of the device's methods.
#[derive(Clone, Default)]
pub struct DeviceWaker(Arc<OnceLock<Poll>>);

impl DeviceWaker {
    /// Connects the waker. Later calls have no effect.
    pub fn connect(&self, poll: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(poll));
    }

    /// Polls the device.
    pub fn wake(&self) {
        if let Some(poll) = self.0.get() {
            poll();
        }
    }
}
