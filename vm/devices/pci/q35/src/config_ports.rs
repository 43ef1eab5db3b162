use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;

/// The ports of PCI configuration mechanism #1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2), and the
/// reset control register between them (ICH9, section 13.7.5).
///
/// | Port | Access | |
/// |---|---|---|
/// | 0xCF8 | 4 bytes | selects a register of a function |
/// | 0xCF9 | 1 byte | reset control: bit 2 resets the machine; bits 1 and 3, the kind of reset, are stored and have no effect |
/// | 0xCFC-0xCFF | any size within the four ports | the selected register |
///
/// Other accesses to the first four ports are ignored. Guests that probe for mechanism #2 make them.
pub struct ConfigPorts {
    space: PciConfigSpace,
    power: PowerSink,
    state: State,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    address: u32,
    #[n(2)]
    reset_control: u8,
}

const ADDRESS: u16 = 0xcf8;
/// The reset control register.
pub const RESET_CONTROL: u16 = 0xcf9;
/// The value of the reset control register that resets the machine.
pub const RESET_SYSTEM: u8 = 0x06;
const ADDRESS_LAST: u16 = 0xcfb;
const DATA: u16 = 0xcfc;
const DATA_LAST: u16 = 0xcff;

const ENABLE: u32 = 1 << 31;
/// Enable, bus, device, function and register number.
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;

const RESET_CPU: u8 = 1 << 2;
/// System reset and full reset.
const RESET_KINDS: u8 = 0x0a;

impl ConfigPorts {
    /// The ports through which guests access `space`. Resets go to `power`.
    pub fn new(space: PciConfigSpace, power: PowerSink) -> Self {
        Self {
            space,
            power,
            state: State::default(),
        }
    }

    /// The function and register that the address port selects, if it is enabled.
    fn selected(&self) -> Option<(PciAddress, u16)> {
        let address = self.state.address;
        let [register, function, bus, _] = address.to_le_bytes();
        let function = PciAddress {
            bus,
            device: function >> 3,
            function: function & 7,
        };
        (address & ENABLE != 0).then_some((function, register.into()))
    }
}

/// The bytes of the data register that an access addresses.
fn lanes(port: u16, len: usize) -> Result<std::ops::Range<usize>, IoError> {
    let start = usize::from(port - DATA);
    let end = start + len;
    (end <= 4)
        .then_some(start..end)
        .ok_or(IoError::InvalidAccessSize)
}

impl ChipsetDevice for ConfigPorts {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([ADDRESS..=DATA_LAST])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        match (port, &mut *data) {
            (ADDRESS, [_, _, _, _]) => data.copy_from_slice(&self.state.address.to_le_bytes()),
            (RESET_CONTROL, [value]) => *value = self.state.reset_control,
            (ADDRESS..=ADDRESS_LAST, _) => data.fill(0xff),
            (DATA..=DATA_LAST, _) => {
                let lanes = lanes(port, data.len())?;
                let selected = self.selected();
                let value = selected.map_or(u32::MAX, |(function, register)| {
                    self.space.read(function, register)
                });
                data.copy_from_slice(&value.to_le_bytes()[lanes]);
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        match (port, data) {
            (ADDRESS, &[a, b, c, d]) => {
                self.state.address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_BITS;
            }
            (RESET_CONTROL, &[value]) => {
                self.state.reset_control = value & RESET_KINDS;
                if value & RESET_CPU != 0 {
                    self.power.request(PowerEvent::Reset);
                }
            }
            (ADDRESS..=ADDRESS_LAST, _) => {}
            (DATA..=DATA_LAST, _) => {
                let lanes = lanes(port, data.len())?;
                let (mut value, mut mask) = ([0; 4], [0; 4]);
                value[lanes.clone()].copy_from_slice(data);
                mask[lanes].fill(0xff);
                if let Some((function, register)) = self.selected() {
                    let (value, mask) = (u32::from_le_bytes(value), u32::from_le_bytes(mask));
                    self.space.write(function, register, value, mask);
                }
            }
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if state.address & !ADDRESS_BITS != 0 || state.reset_control & !RESET_KINDS != 0 {
            let text = format!("invalid PCI configuration ports {state:x?}");
            return Err(RestoreError::Invalid(text));
        }
        self.state = state;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "address": format!("{:#010x}", self.state.address),
            "selected": self.selected().map(|(function, register)| {
                format!("{function} register {register:#04x}")
            }),
            "reset_control": format!("{:#04x}", self.state.reset_control),
        })
    }
}
