use parking_lot::Mutex;
use std::sync::Arc;
use virtio::DeviceSignals;

/// The state of a network device's link.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Frames pass.
    Up,
    /// Frames are dropped.
    Down,
}

struct LinkShared {
    state: LinkState,
    signals: Option<DeviceSignals>,
}

/// The link of a network device. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Mutex<LinkShared>>);

impl Link {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(LinkShared {
            state: LinkState::Up,
            signals: None,
        })))
    }

    /// Sets the signals by which a driver, if there is one, learns of changes.
    pub(crate) fn connect(&self, signals: Option<DeviceSignals>) {
        self.0.lock().signals = signals;
    }

    /// Sets the state, and notifies the driver of a change.
    pub fn set(&self, state: LinkState) {
        let signals = {
            let mut shared = self.0.lock();
            let changed = std::mem::replace(&mut shared.state, state) != state;
            shared.signals.clone().filter(|_| changed)
        };
        if let Some(signals) = signals {
            signals.config_changed();
        }
    }

    /// The current state.
    pub fn state(&self) -> LinkState {
        self.0.lock().state
    }
}
