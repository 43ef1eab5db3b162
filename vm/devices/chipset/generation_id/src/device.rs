use chipset_device::ChipsetDevice;
use chipset_device::LineInterrupt;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory as _;
use vm_memory::Permissions;

/// The size of the ID, in bytes.
pub const GENERATION_ID_LEN: usize = 16;

/// The generation ID device (Microsoft's Virtual Machine Generation ID specification).
///
/// The guest's firmware allocates memory for the ID and sets the address; then the device writes the ID there. The ID
/// changes when the machine is duplicated, for example when a snapshot is restored a second time, and a general-purpose
/// event notifies the guest. A reset and a migration keep the ID.
pub struct GenerationId {
    memory: GuestMemory,
    event: LineInterrupt,
    state: State,
    errors: LogLimit,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    #[cbor(n(1), with = "minicbor::bytes")]
    id: [u8; GENERATION_ID_LEN],
    /// The guest-physical address, once the firmware has set it.
    #[n(2)]
    address: Option<u64>,
}

impl GenerationId {
    /// A device with `id`, in the byte order of guest memory. Changes of the ID pulse `event`.
    pub fn new(id: [u8; GENERATION_ID_LEN], memory: GuestMemory, event: LineInterrupt) -> Self {
        Self {
            memory,
            event,
            state: State { id, address: None },
            errors: LogLimit::new(),
        }
    }

    /// Sets the guest-physical address of the ID, as requested by the guest, and writes the ID there. 0 means that there
    /// is no address. An address outside of RAM is refused, and the previous one is kept.
    pub fn set_address(&mut self, address: u64) {
        if address == 0 {
            self.state.address = None;
            return;
        }
        if self.is_ram(address) {
            self.state.address = Some(address);
            self.write();
        } else if let Some(suppressed) = self.errors.allow() {
            tracing::warn!(
                gpa = format_args!("{address:#x}"),
                suppressed,
                "the guest set an address for its generation ID that is not in RAM"
            );
        }
    }

    /// Changes the ID and notifies the guest.
    ///
    /// May be called while the VM is stopped; the guest is then notified when it runs.
    pub fn change(&mut self, id: [u8; GENERATION_ID_LEN]) {
        self.state.id = id;
        self.write();
        self.event.pulse();
    }

    /// Whether the ID at guest-physical address `address` would be in RAM.
    fn is_ram(&self, address: u64) -> bool {
        self.memory
            .map()
            .check_range(GuestAddress(address), GENERATION_ID_LEN, Permissions::Write)
    }

    fn write(&self) {
        let Some(address) = self.state.address else {
            return;
        };
        let written = self
            .memory
            .map()
            .write_slice(&self.state.id, GuestAddress(address));
        if let Err(error) = written
            && let Some(suppressed) = self.errors.allow()
        {
            tracing::error!(
                gpa = format_args!("{address:#x}"),
                error = &error as &dyn std::error::Error,
                suppressed,
                "cannot write the generation ID to guest memory"
            );
        }
    }
}

impl ChipsetDevice for GenerationId {
    /// None: the firmware sets the address through fw_cfg.
    /// Clears the address, which the firmware sets again after the reset.
    fn reset(&mut self) {
        self.state.address = None;
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    /// Also writes the ID to guest memory, so that the result does not depend on the order in which units are restored.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if let Some(address) = state.address
            && (address == 0 || !self.is_ram(address))
        {
            let text = format!("the address {address:#x} of the generation ID is not in RAM");
            return Err(RestoreError::Invalid(text));
        }
        self.state = state;
        self.write();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let id: String = self.state.id.iter().map(|b| format!("{b:02x}")).collect();
        json!({
            "id": id,
            "address": self.state.address.map(|address| format!("{address:#x}")),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
