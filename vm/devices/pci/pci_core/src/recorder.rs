use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::MsiVector;
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An interrupt controller that records the messages it receives, for tests of devices. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MsiRecorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    messages: Vec<MsiMessage>,
    vectors: Vec<Arc<Vector>>,
    /// Whether requests fail.
    broken: bool,
}

#[derive(Debug)]
struct Vector {
    event: OwnedFd,
    enabled: Mutex<Option<MsiMessage>>,
}

impl MsiRecorder {
    /// A recorder without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the messages since the last call.
    pub fn take(&self) -> Vec<MsiMessage> {
        let mut recorded = self.0.lock();
        let Recorded {
            messages, vectors, ..
        } = &mut *recorded;
        let delivered = vectors.iter().filter_map(|vector| vector.deliver());
        messages.extend(delivered);
        std::mem::take(messages)
    }

    /// Makes requests fail from now on.
    pub fn break_down(&self) {
        self.0.lock().broken = true;
    }

    /// Makes requests succeed again.
    pub fn mend(&self) {
        self.0.lock().broken = false;
    }

    fn check(&self) -> std::io::Result<()> {
        if self.0.lock().broken {
            Err(std::io::ErrorKind::OutOfMemory.into())
        } else {
            Ok(())
        }
    }
}

impl Vector {
    /// Consumes an event, if there is one, and returns the message that it raises.
    fn deliver(&self) -> Option<MsiMessage> {
        let message = (*self.enabled.lock())?;
        rustix::io::read(&self.event, &mut [0; 8]).ok()?;
        Some(message)
    }
}

impl MsiTarget for MsiRecorder {
    fn signal(&self, message: MsiMessage) {
        self.0.lock().messages.push(message);
    }

    fn new_vector(&self) -> std::io::Result<Box<dyn MsiVector>> {
        self.check()?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let vector = Arc::new(Vector {
            event: rustix::event::eventfd(0, flags)?,
            enabled: Mutex::default(),
        });
        self.0.lock().vectors.push(vector.clone());
        Ok(Box::new(RecordedVector {
            vector,
            recorder: self.clone(),
        }))
    }
}

struct RecordedVector {
    vector: Arc<Vector>,
    recorder: MsiRecorder,
}

impl MsiVector for RecordedVector {
    fn event(&self) -> BorrowedFd<'_> {
        self.vector.event.as_fd()
    }

    fn enable(&self, message: MsiMessage) -> std::io::Result<()> {
        self.recorder.check()?;
        // Earlier events are delivered with the previous message.
        let mut recorded = self.recorder.0.lock();
        recorded.messages.extend(self.vector.deliver());
        *self.vector.enabled.lock() = Some(message);
        recorded.messages.extend(self.vector.deliver());
        Ok(())
    }

    fn disable(&self) -> std::io::Result<()> {
        self.recorder.check()?;
        let mut recorded = self.recorder.0.lock();
        recorded.messages.extend(self.vector.deliver());
        *self.vector.enabled.lock() = None;
        Ok(())
    }
}
