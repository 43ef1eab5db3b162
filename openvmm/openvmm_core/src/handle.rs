//! A running VM, as its front end holds it.

use crate::worker::Message;
use mesh::Rpc;
use mesh::RpcReply;
use mesh::Sender;
use openvmm_defs::request::VmRequest;
use serial_16550::SerialPort;
use std::path::PathBuf;

/// A running VM. Clones are handles of the same VM.
#[derive(Clone)]
pub struct VmHandle {
    pub(crate) messages: Sender<Message>,
    pub(crate) console: Option<SerialPort>,
    pub(crate) ptys: Vec<(String, PathBuf)>,
}

impl VmHandle {
    /// Asks for something. An error reply means that the VM's worker is gone.
    pub fn call<I, O>(&self, wrap: impl FnOnce(Rpc<I, O>) -> VmRequest, input: I) -> RpcReply<O> {
        self.messages.call(|rpc| Message::Request(wrap(rpc)), input)
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
