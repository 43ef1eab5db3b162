//! How the console controls the VM.

use mesh::Rpc;
use mesh::Sender;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::VmRequest;
use serde_json::Value;
use serial_16550::SerialPort;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// Sends requests to the VM's worker and waits for the replies.
#[derive(Clone)]
pub(crate) struct VmControl {
    requests: Sender<VmRequest>,
    progress: SaveProgress,
}

/// How far the snapshot that is being saved has come, in percent. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SaveProgress(Arc<AtomicU8>);

impl SaveProgress {
    /// Notes that `done` bytes of `total` were looked at.
    pub(crate) fn set(&self, done: u64, total: u64) {
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        self.0.store(percent.min(100) as u8, Ordering::Relaxed);
    }

    /// The percentage.
    pub(crate) fn percent(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

impl VmControl {
    /// Sends to the worker that takes `requests`, and reports `progress` while it saves.
    pub(crate) fn new(requests: Sender<VmRequest>, progress: SaveProgress) -> Self {
        Self { requests, progress }
    }

    /// How far the snapshot that is being saved has come.
    pub(crate) fn progress(&self) -> &SaveProgress {
        &self.progress
    }

    /// Returns the current tree of the VM's state.
    pub(crate) fn inspect(&self) -> Result<Value, String> {
        self.call(VmRequest::Inspect, ()).map(Value::from)
    }

    fn call<I, O>(&self, wrap: impl FnOnce(Rpc<I, O>) -> VmRequest, input: I) -> Result<O, String> {
        pal_async::block_on(self.requests.call(wrap, input))
            .map_err(|_| "the VM's worker has ended".into())
    }

    /// Makes a request that the worker may refuse.
    pub(crate) fn try_call<O>(
        &self,
        wrap: impl FnOnce(Rpc<(), Result<O, RequestError>>) -> VmRequest,
    ) -> Result<O, String> {
        self.try_request(wrap, ())
    }

    /// As [`Self::try_call`], with what the request is about.
    pub(crate) fn try_request<I, O>(
        &self,
        wrap: impl FnOnce(Rpc<I, Result<O, RequestError>>) -> VmRequest,
        input: I,
    ) -> Result<O, String> {
        self.call(wrap, input)?.map_err(|error| error.to_string())
    }
}

/// The console's input to a serial port. While the port has no room, writing to it would block.
pub(crate) struct PortInput(pub SerialPort);

impl Write for PortInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write_input(bytes) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
pub(crate) mod tests;
