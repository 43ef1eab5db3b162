//! Eventfds that raise MSIs.

use crate::state::Shared;
use crate::state::VectorState;
use chipset_device::MsiMessage;
use chipset_device::MsiVector;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

struct Vector {
    shared: Arc<Shared>,
    partition: usize,
    id: u64,
    event: Arc<OwnedFd>,
}

pub(crate) fn new_vector(shared: &Arc<Shared>, partition: usize) -> io::Result<Box<dyn MsiVector>> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event = Arc::new(rustix::event::eventfd(0, flags)?);
    let mut state = shared.state.lock();
    let id = state.new_id();
    state.partitions[partition].vectors.push(VectorState {
        id,
        event: event.clone(),
        enabled: None,
    });
    Ok(Box::new(Vector {
        shared: shared.clone(),
        partition,
        id,
        event,
    }))
}

impl Vector {
    fn set(&self, message: Option<MsiMessage>) {
        let mut state = self.shared.state.lock();
        // Events that came before are delivered as the vector was then.
        state.deliver_events();
        let vectors = &mut state.partitions[self.partition].vectors;
        if let Some(vector) = vectors.iter_mut().find(|v| v.id == self.id) {
            vector.enabled = message;
        }
        state.deliver_events();
        self.shared.changed.notify_all();
    }
}

impl MsiVector for Vector {
    fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn enable(&self, message: MsiMessage) -> io::Result<()> {
        self.set(Some(message));
        Ok(())
    }

    fn disable(&self) -> io::Result<()> {
        self.set(None);
        Ok(())
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.deliver_events();
        let vectors = &mut state.partitions[self.partition].vectors;
        vectors.retain(|v| v.id != self.id);
    }
}
