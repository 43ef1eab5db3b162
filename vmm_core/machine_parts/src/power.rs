//! The guest's power requests on their way to the worker.

use crate::vps::VpGate;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Lets one request through each time the machine runs: with several VPs, another one may be made before
/// the first has stopped them all, and must not hit the machine that starts anew.
#[derive(Clone, Default)]
pub struct PowerLatch(Arc<AtomicBool>);

impl PowerLatch {
    /// Ready for a request. The VPs are stopped.
    pub fn arm(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// What devices make their requests to: it closes the VPs' gate, then tells `receive`.
    pub fn sink(&self, gate: VpGate, receive: Box<dyn Fn(PowerEvent) + Send + Sync>) -> PowerSink {
        let armed = self.0.clone();
        PowerSink::new(move |event| {
            gate.close();
            if armed.swap(false, Ordering::SeqCst) {
                receive(event);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn one_request_a_run() {
        let latch = PowerLatch::default();
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let received = received.clone();
            latch.sink(
                VpGate::default(),
                Box::new(move |event| received.lock().push(event)),
            )
        };
        sink.request(PowerEvent::Reset);
        assert!(received.lock().is_empty());
        latch.arm();
        sink.request(PowerEvent::PowerOff);
        sink.request(PowerEvent::Reset);
        assert_eq!(*received.lock(), [PowerEvent::PowerOff]);
        latch.arm();
        sink.request(PowerEvent::Reset);
        assert_eq!(received.lock().len(), 2);
    }
}
