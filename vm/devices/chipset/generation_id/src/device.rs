use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::LineInterrupt;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use guest_memory::GuestMemory;
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
/// The guest's firmware finds a place for the ID in memory and tells the address; from then on the ID is there. The ID
/// changes when the machine becomes another one, as when a snapshot is restored a second time, and the guest hears
/// of that by a general-purpose event. A reset and a migration keep it.
#[derive(Debug)]
pub struct GenerationId {
    memory: GuestMemory,
    event: LineInterrupt,
    state: State,
    /// A wrong address was refused, and that was logged.
    refused_address: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    #[cbor(n(1), with = "minicbor::bytes")]
    id: [u8; GENERATION_ID_LEN],
    /// Guest-physical address, once the firmware has told it.
    #[n(2)]
    address: Option<u64>,
}

impl GenerationId {
    /// A device with this ID (as the bytes are to appear in memory), whose changes pulse `event`.
    pub fn new(id: [u8; GENERATION_ID_LEN], memory: GuestMemory, event: LineInterrupt) -> Self {
        Self {
            memory,
            event,
            state: State { id, address: None },
            refused_address: false,
        }
    }

    /// The ID now.
    pub fn id(&self) -> [u8; GENERATION_ID_LEN] {
        self.state.id
    }

    /// Where it is in guest memory, once that is known.
    pub fn address(&self) -> Option<u64> {
        self.state.address
    }

    /// The guest says where the ID is to be: at guest-physical address `address`, to which it is written now; or
    /// nowhere if that is 0. An address outside of RAM is refused, and the one before it stays.
    pub fn set_address(&mut self, address: u64) {
        if address == 0 {
            self.state.address = None;
            return;
        }
        if self.is_ram(address) {
            self.state.address = Some(address);
            self.write();
        } else if !std::mem::replace(&mut self.refused_address, true) {
            tracing::warn!(
                gpa = format_args!("{address:#x}"),
                "the guest asked for its generation ID outside of its memory"
            );
        }
    }

    /// The machine became another one: it has this ID now, and the guest is told.
    ///
    /// May be called while the VM is stopped; the guest then hears of it when it runs.
    pub fn change(&mut self, id: [u8; GENERATION_ID_LEN]) {
        self.state.id = id;
        self.write();
        self.event.pulse();
    }

    /// Whether there is RAM for the ID at guest-physical address `address`.
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
        if let Err(error) = written {
            tracing::error!(
                gpa = format_args!("{address:#x}"),
                error = &error as &dyn std::error::Error,
                "the generation ID is not in guest memory"
            );
        }
    }
}

impl ChipsetDevice for GenerationId {
    /// None: the address comes by way of firmware.
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::default()
    }

    /// Forgets the address, which was the one of the firmware before the reset.
    fn reset(&mut self) {
        self.state.address = None;
        self.refused_address = false;
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    /// The ID is written to where it was: whatever order parts are restored in, it is this one in the end.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if let Some(address) = state.address
            && (address == 0 || !self.is_ram(address))
        {
            let text = format!("a generation ID at {address:#x}, where it cannot be");
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
