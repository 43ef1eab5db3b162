//! A running VM, as its front end holds it.

use mesh::Sender;
use openvmm_defs::request::VmRequest;
use serial_16550::SerialPort;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A running VM. Clones are handles of the same VM.
#[derive(Clone)]
pub struct VmHandle {
    /// The channel to the VM's worker. Calls fail once the worker has ended.
    pub requests: Sender<VmRequest>,
    /// The serial port that takes the console's input.
    pub console: Option<SerialPort>,
    /// The pseudo-terminals made for serial ports: the device's name, and the terminal's path.
    pub ptys: Vec<(String, PathBuf)>,
    /// The TCP sockets that serial ports listen on: the device's name, and the address.
    pub listeners: Vec<(String, SocketAddr)>,
}
