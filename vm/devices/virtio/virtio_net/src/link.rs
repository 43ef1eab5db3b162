use crate::NetBackend;
use crate::ReceiveError;
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

/// Drops the frames that have arrived and were not received.
type DropWaiting = dyn Fn() + Send + Sync;

struct LinkShared {
    state: LinkState,
    signals: Option<DeviceSignals>,
}

/// The link of a network device. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Mutex<LinkShared>>,
    drop_waiting: Arc<DropWaiting>,
}

impl Link {
    /// A link that is up. When it comes up again, `drop_waiting` drops what arrived while it was down.
    pub(crate) fn new(drop_waiting: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Mutex::new(LinkShared {
                state: LinkState::Up,
                signals: None,
            })),
            drop_waiting: Arc::new(drop_waiting),
        }
    }

    /// Sets the signals by which a driver, if there is one, learns of changes.
    pub(crate) fn connect(&self, signals: Option<DeviceSignals>) {
        self.shared.lock().signals = signals;
    }

    /// Sets the state, and notifies the driver of a change. Returns the state until then.
    pub fn set(&self, state: LinkState) -> LinkState {
        let (previous, signals) = {
            let mut shared = self.shared.lock();
            if state == LinkState::Up && shared.state == LinkState::Down {
                (self.drop_waiting)();
            }
            let previous = std::mem::replace(&mut shared.state, state);
            let signals = shared.signals.clone();
            (previous, signals.filter(|_| previous != state))
        };
        if let Some(signals) = signals {
            signals.config_changed();
        }
        previous
    }

    /// The current state.
    pub fn state(&self) -> LinkState {
        self.shared.lock().state
    }

    /// Drops the next frame that has arrived on `backend`, if the link is down: not one that arrived after it came up.
    pub(crate) fn discard_while_down(
        &self,
        backend: &impl NetBackend,
    ) -> Option<Result<(), ReceiveError>> {
        let shared = self.shared.lock();
        (shared.state == LinkState::Down).then(|| backend.discard())
    }
}
