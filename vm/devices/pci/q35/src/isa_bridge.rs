use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use pci_core::ClassCode;
use pci_core::FunctionBuilder;
use pci_core::FunctionState;
use pci_core::HardwareIds;
use pci_core::PciFunction;
use pci_core::PciLayoutError;
use serde_json::json;

/// The LPC interface bridge of an I/O controller hub 9, at 00:1f.0 (data sheet 316972, section 13.1).
///
/// | Offset | Register |
/// |---|---|
/// | 0x40 | PMBASE: the address of the PM ports. Read-only |
/// | 0x44 | ACPI_CNTL: the PM ports are enabled, and the SCI is interrupt 9. Read-only |
/// | 0x60-0x63, 0x68-0x6B | routes of PIRQA-PIRQH. No effect, the I/O APIC delivers the interrupts |
/// | 0x64 | serial interrupts. No effect |
/// | 0x80-0x93 | ports that are forwarded to the LPC bus. No effect, legacy devices are always enabled |
/// | 0xA0, 0xA4 | power management. No effect |
/// | 0xF0 | RCBA: the address of the chipset's registers. No effect, they are not implemented |
pub struct IsaBridge {
    function: PciFunction,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    function: FunctionState,
}

const PMBASE: u16 = 0x40;
const PMBASE_BITS: u16 = 0xff80;
/// The base is in I/O space.
const PMBASE_IO: u32 = 1 << 0;
const ACPI_CNTL: u16 = 0x44;
const ACPI_ENABLE: u32 = 1 << 7;

/// Registers that are stored and have no effect: offset, value at reset, writable bits.
const STORAGE: [(u16, u32, u32); 11] = [
    // PIRQA-PIRQD and PIRQE-PIRQH, disabled.
    (0x60, 0x8080_8080, 0x8f8f_8f8f),
    (0x68, 0x8080_8080, 0x8f8f_8f8f),
    // SIRQ_CNTL.
    (0x64, 0x0000_0010, 0x0000_00c3),
    // LPC_I/O_DEC and LPC_EN, GEN1_DEC to GEN4_DEC.
    (0x80, 0, 0x3fff_1377),
    (0x84, 0, 0x00fc_fffd),
    (0x88, 0, 0x00fc_fffd),
    (0x8c, 0, 0x00fc_fffd),
    (0x90, 0, 0x00fc_fffd),
    // GEN_PMCON_1, GEN_PMCON_3.
    (0xa0, 0, 0x0000_001f),
    (0xa4, 0, 0x0000_0001),
    // RCBA.
    (0xf0, 0, 0xffff_c001),
];

/// I/O and memory decoding and bus mastering, which are always enabled. Firmware looks for serial ports only behind a
/// bridge with the first two.
const COMMAND: u16 = 0x0007;

impl IsaBridge {
    /// The address of the bridge.
    pub const ADDRESS: PciAddress = PciAddress {
        bus: 0,
        device: 0x1f,
        function: 0,
    };

    /// A bridge whose PMBASE is `pm_base`, a multiple of 128.
    pub fn new(pm_base: u16) -> Result<Self, PciLayoutError> {
        let mut builder = FunctionBuilder::new(&HardwareIds {
            vendor: 0x8086,
            device: 0x2918,
            revision: 2,
            class: ClassCode {
                base: 0x06,
                sub: 0x01,
                interface: 0x00,
            },
            ..HardwareIds::default()
        });
        builder.fixed_command(COMMAND);
        let pm_base = u32::from(pm_base & PMBASE_BITS);
        builder.register(PMBASE, pm_base | PMBASE_IO, 0)?;
        builder.register(ACPI_CNTL, ACPI_ENABLE, 0)?;
        for (offset, reset, writable) in STORAGE {
            builder.register(offset, reset, writable)?;
        }
        Ok(Self {
            function: builder.build(AddressDecoder::detached()),
        })
    }
}

impl ChipsetDevice for IsaBridge {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::pci(Self::ADDRESS)
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
        Ok(self.function.read_config(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.function.write_config(offset, value, mask);
        Ok(())
    }

    fn reset(&mut self) {
        self.function.reset();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&State {
            function: self.function.save(),
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        self.function.restore(&state.function)
    }

    fn inspect(&self) -> serde_json::Value {
        json!({ "function": self.function.inspect() })
    }
}
