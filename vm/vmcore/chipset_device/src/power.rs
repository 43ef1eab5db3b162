use std::sync::Arc;

/// A power request of a guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PowerEvent {
    /// S5: power off.
    PowerOff,
    /// S4: the guest has saved its state to its disk; power off.
    Hibernate,
    /// Reset the machine.
    Reset,
    /// The guest's kernel panicked. The guest may continue to run, for example to write a dump.
    GuestPanicked,
}

/// Receives a guest's power requests.
///
/// After the access that made a request, other than [`PowerEvent::GuestPanicked`], the guest must not execute
/// another instruction: the receiver stops every VP before it enters the guest again.
#[derive(Clone)]
pub struct PowerSink(Arc<dyn Fn(PowerEvent) + Send + Sync>);

impl PowerSink {
    /// Calls `receive` for each request, on the VP's thread and with the requesting device locked.
    pub fn new(receive: impl Fn(PowerEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Makes a request.
    pub fn request(&self, event: PowerEvent) {
        (self.0)(event);
    }
}
