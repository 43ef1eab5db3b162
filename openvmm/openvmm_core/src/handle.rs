//! A running VM, as its front end holds it.

use mesh::Rpc;
use mesh::RpcReply;
use mesh::Sender;
use openvmm_defs::request::VmRequest;
use serial_16550::SerialPort;
use std::path::PathBuf;

/// A running VM. Clones are handles of the same VM.
#[derive(Clone)]
pub struct VmHandle {
    pub(crate) requests: Sender<VmRequest>,
    pub(crate) console: Option<SerialPort>,
    pub(crate) ptys: Vec<(String, PathBuf)>,
}

impl VmHandle {
    /// Makes a request. An error reply means that the VM's worker is gone.
    pub fn call<I, O>(&self, wrap: impl FnOnce(Rpc<I, O>) -> VmRequest, input: I) -> RpcReply<O> {
        self.requests.call(wrap, input)
    }

    /// The serial port that takes the console's input.
    pub fn console(&self) -> Option<&SerialPort> {
        self.console.as_ref()
    }

    /// The pseudo-terminals made for serial ports: the device's name, and the terminal's path.
    pub fn ptys(&self) -> &[(String, PathBuf)] {
        &self.ptys
    }
}
