//! The console's hold on the VM.

use crate::console::Control;
use crate::console::GuestInput;
use mesh::Rpc;
use openvmm_core::VmHandle;
use openvmm_defs::request::Change;
use openvmm_defs::request::RequestError;
use openvmm_defs::request::VmRequest;
use serde_json::Value;
use serial_16550::SerialPort;
use std::io;
use std::time::Duration;

/// Sends the prompt's commands to the VM's worker, and waits for its answers.
#[derive(Clone)]
pub(crate) struct VmControl(pub VmHandle);

impl VmControl {
    fn call<O>(&self, wrap: impl FnOnce(Rpc<(), O>) -> VmRequest) -> Result<O, String> {
        pal_async::block_on(self.0.call(wrap, ())).map_err(|_| "the VM is gone".into())
    }

    fn ask<O>(
        &self,
        wrap: impl FnOnce(Rpc<(), Result<O, RequestError>>) -> VmRequest,
    ) -> Result<O, String> {
        self.call(wrap)?.map_err(|error| error.to_string())
    }
}

impl Control for VmControl {
    fn pause(&self) -> Result<Change, String> {
        self.ask(VmRequest::Pause)
    }

    fn resume(&self) -> Result<Change, String> {
        self.ask(VmRequest::Resume)
    }

    fn reset(&self) -> Result<(), String> {
        self.ask(VmRequest::Reset)
    }

    fn power_button(&self) -> Result<(), String> {
        self.ask(VmRequest::PowerButton)
    }

    fn inspect(&self) -> Result<Value, String> {
        self.call(VmRequest::Inspect).map(Value::from)
    }
}

/// Keys on their way into a serial port.
pub(crate) struct PortInput(pub SerialPort);

impl GuestInput for PortInput {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.0.write_input(bytes);
            bytes = &bytes[taken..];
            if !bytes.is_empty() {
                self.0.wait_input_room(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}
