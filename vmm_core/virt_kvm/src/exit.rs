//! The run loop: enters the guest and handles its exits.

use crate::kick::Running;
use crate::run_page::Exit;
use crate::run_page::InternalError;
use crate::run_page::PortAccess;
use crate::vp::KvmVp;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use std::io;
use virt::Error;
use virt::IoBus;
use virt::RunError;
use virt::VpStop;

/// The longest instruction of the architecture.
const MAX_INSTRUCTION: usize = 15;

impl KvmVp {
    /// See [`virt::Vp::run`].
    pub(crate) fn run_guest(&self, io: &dyn IoBus) -> Result<VpStop, RunError> {
        let _running = Running::new(&self.page);
        loop {
            // Before each entry: no guest instruction runs after handling an exit asked the VP to stop.
            if self.shared.kick.requested() {
                return self.complete(io);
            }
            match self.page.run() {
                Ok(exit) => {
                    if let Some(stop) = self.handle(exit, io)? {
                        return Ok(stop);
                    }
                }
                Err(error) => self.entry_failed(error)?,
            }
        }
    }

    /// Completes the instruction whose access was handled last, without running another. An access can be split into
    /// several exits.
    fn complete(&self, io: &dyn IoBus) -> Result<VpStop, RunError> {
        let result = loop {
            self.page.set_immediate_exit(true);
            match self.page.run() {
                Ok(exit) => match self.handle(exit, io) {
                    Ok(None) => {}
                    Ok(Some(stop)) => break Ok(stop),
                    Err(error) => break Err(error),
                },
                Err(error) => break self.entry_failed(error).map(|()| VpStop::Requested),
            }
        };
        self.page.set_immediate_exit(false);
        if let Ok(VpStop::Requested) = result {
            self.shared.kick.clear();
        }
        result
    }

    /// Handles an error of KVM_RUN: being interrupted, or waiting to be started, is none.
    fn entry_failed(&self, error: io::Error) -> Result<(), RunError> {
        match error.raw_os_error() {
            Some(libc::EINTR) => {
                // First the byte, then (in the loop) the flag: a kick in between sets both.
                self.page.set_immediate_exit(false);
                Ok(())
            }
            Some(libc::EAGAIN) => Ok(()),
            _ => Err(self.failed(Error::call("run the guest (KVM_RUN)", error))),
        }
    }

    fn failed(&self, source: Error) -> RunError {
        RunError::Hypervisor {
            vp: self.shared.topology.index,
            source,
        }
    }

    fn handle(&self, exit: Exit, io: &dyn IoBus) -> Result<Option<VpStop>, RunError> {
        let vp = self.shared.topology.index;
        match exit {
            Exit::Port(access) => self.port(&access, io)?,
            Exit::MmioWrite { gpa, len, data } => io.write_mmio(gpa, &data[..len]),
            Exit::MmioRead { gpa, len } => {
                let mut data = [0; 8];
                io.read_mmio(gpa, &mut data[..len]);
                self.page.set_mmio_data(data);
            }
            Exit::ReadMsr { index } => self.page.set_msr_result(io.read_msr(vp, index)),
            Exit::WriteMsr { index, value } => {
                let written = io.write_msr(vp, index, value);
                self.page.set_msr_result(written.map(|()| value));
            }
            Exit::EndOfInterrupt { vector } => io.end_of_interrupt(vector),
            Exit::Shutdown => return Ok(Some(VpStop::TripleFault)),
            Exit::FailEntry { reason } => return Err(RunError::FailEntry { vp, reason }),
            Exit::InternalError(error) => return Err(self.internal_error(&error)),
            Exit::SystemEvent { kind } => {
                let exit = format!("KVM_EXIT_SYSTEM_EVENT of type {kind}");
                return Err(RunError::UnexpectedExit { vp, exit });
            }
            Exit::Other { reason } => {
                let exit = format!("KVM exit reason {reason}");
                return Err(RunError::UnexpectedExit { vp, exit });
            }
        }
        Ok(None)
    }

    /// Handles a port access, one element of a string instruction after the other.
    fn port(&self, access: &PortAccess, io: &dyn IoBus) -> Result<(), RunError> {
        for n in 0..access.count {
            let Some(mut bytes) = self.page.port_element(access, n) else {
                return Err(RunError::UnexpectedExit {
                    vp: self.shared.topology.index,
                    exit: format!("KVM_EXIT_IO outside the run page: {access:?}"),
                });
            };
            if access.write {
                io.write_port(access.port, &bytes[..access.size]);
            } else {
                io.read_port(access.port, &mut bytes[..access.size]);
                self.page.set_port_element(access, n, bytes);
            }
        }
        Ok(())
    }

    fn internal_error(&self, error: &InternalError) -> RunError {
        let vp = self.shared.topology.index;
        let data = &error.data[..error.count];
        if error.suberror != KVM_INTERNAL_ERROR_EMULATION {
            return RunError::Internal {
                vp,
                suberror: error.suberror,
                data: data.to_vec(),
            };
        }
        let rip = match self.linear_rip() {
            Ok(rip) => rip,
            Err(source) => return self.failed(source),
        };
        let bytes = instruction_bytes(data).unwrap_or_else(|| self.fetch(rip));
        RunError::Emulation { vp, rip, bytes }
    }

    fn linear_rip(&self) -> Result<u64, Error> {
        let registers = self.read_registers()?;
        // In 64-bit mode the code segment's base is not used.
        let long_mode = registers.efer & 1 << 10 != 0 && registers.cs.attributes & 1 << 13 != 0;
        let base = if long_mode { 0 } else { registers.cs.base };
        Ok(base.wrapping_add(registers.rip))
    }

    /// Up to 15 bytes of guest memory at linear address `rip`, which may be on two pages.
    fn fetch(&self, rip: u64) -> Vec<u8> {
        let mut bytes = [0; MAX_INSTRUCTION];
        let mut count = 0;
        while count < bytes.len() {
            let address = rip.wrapping_add(count as u64);
            let on_page = (0x1000 - (address & 0xfff)) as usize;
            let wanted = on_page.min(bytes.len() - count);
            let gpa = match self.shared.vcpu.translate_gva(address) {
                Ok(t) if t.valid != 0 => t.physical_address,
                _ => break,
            };
            let read = self
                .partition
                .slots
                .read(gpa, &mut bytes[count..count + wanted]);
            count += read;
            if read < wanted {
                break;
            }
        }
        bytes[..count].to_vec()
    }
}

/// The bytes in the record of an emulation failure: flags, of which bit 0 says that the rest follows; then a
/// byte of length and 15 of instruction.
fn instruction_bytes(data: &[u64]) -> Option<Vec<u8>> {
    let &[flags, low, high, ..] = data else {
        return None;
    };
    if flags & 1 == 0 {
        return None;
    }
    let [length, bytes @ ..] = u128::to_le_bytes(u128::from(high) << 64 | u128::from(low));
    let length = usize::from(length).min(MAX_INSTRUCTION);
    (length != 0).then(|| bytes[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::instruction_bytes;

    #[test]
    fn instruction_bytes_come_from_the_record() {
        // popcnt ax, ax; hlt, as a processor without the instruction in its emulator reported it.
        let data = [1, 0x9090_f4c0_b80f_f30f, 0x9090_9090_9090_9090, 0, 0];
        let bytes = instruction_bytes(&data).unwrap();
        assert_eq!(bytes.len(), 15);
        assert_eq!(bytes[..6], [0xf3, 0x0f, 0xb8, 0xc0, 0xf4, 0x90]);
    }

    #[test]
    fn records_without_bytes_or_out_of_bounds() {
        assert_eq!(instruction_bytes(&[]), None);
        assert_eq!(instruction_bytes(&[0, 0x0f, 0]), None);
        assert_eq!(instruction_bytes(&[1, 0]), None);
        assert_eq!(instruction_bytes(&[1, 0xff, 0]).unwrap().len(), 15);
    }
}
