use crate::ecam::EcamWindow;
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
use std::ops::RangeInclusive;

/// The host bridge of a 82Q35 memory controller hub, at 00:00.0 (data sheet 316966, section 5.1).
///
/// | Offset | Register |
/// |---|---|
/// | 0x60, 0x64 | PCIEXBAR: the address of the ECAM. Moves the [`EcamWindow`] |
/// | 0x90-0x96 | PAM: which legacy BIOS areas are RAM. No effect |
/// | 0x9D, 0x9E | SMRAM control. No effect, there is no SMRAM |
///
/// PCIEXBAR is enabled at reset, so that the ECAM is at the address in the ACPI tables also without firmware.
pub struct HostBridge {
    function: PciFunction,
    window: EcamWindow,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    function: FunctionState,
}

const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_HIGH: u16 = 0x64;
/// Base (of windows of 64 MiB and more), length, enable.
const PCIEXBAR_BITS: u64 = 0xf_fc00_0007;
const PCIEXBAR_ENABLE: u64 = 1 << 0;
const PAM: [(u16, u32); 2] = [(0x90, 0x3333_3330), (0x94, 0x0033_3333)];
const SMRAM: u16 = 0x9c;
const SMRAM_AT_RESET: u32 = 0x0038_0200;
const SMRAM_BITS: u32 = 0x0087_7800;

/// Memory decoding, bus mastering and I/O decoding, which are always enabled: debug builds of OVMF stop at a function
/// for which they cannot enable all three.
const COMMAND: u16 = 0x0007;

impl HostBridge {
    /// The address of the bridge.
    pub const ADDRESS: PciAddress = PciAddress {
        bus: 0,
        device: 0,
        function: 0,
    };

    /// A host bridge with the ECAM at guest-physical address `ecam_base` at reset, which it moves through `window`. The
    /// base is a multiple of 256 MiB below 64 GiB; other bits are ignored.
    pub fn new(ecam_base: u64, window: EcamWindow) -> Result<Self, PciLayoutError> {
        let mut builder = FunctionBuilder::new(&HardwareIds {
            vendor: 0x8086,
            device: 0x29c0,
            revision: 2,
            class: ClassCode {
                base: 0x06,
                sub: 0x00,
                interface: 0x00,
            },
            ..HardwareIds::default()
        });
        builder.fixed_command(COMMAND);
        let pciexbar = ecam_base & 0xf_f000_0000 | PCIEXBAR_ENABLE;
        builder.register(PCIEXBAR, pciexbar as u32, PCIEXBAR_BITS as u32)?;
        let high = |value: u64| (value >> 32) as u32;
        builder.register(PCIEXBAR_HIGH, high(pciexbar), high(PCIEXBAR_BITS))?;
        for (offset, writable) in PAM {
            builder.register(offset, 0, writable)?;
        }
        builder.register(SMRAM, SMRAM_AT_RESET, SMRAM_BITS)?;
        let bridge = Self {
            function: builder.build(AddressDecoder::detached()),
            window,
        };
        bridge.move_window();
        Ok(bridge)
    }

    /// The range that PCIEXBAR selects, if it is enabled and valid.
    fn window_range(&self) -> Option<RangeInclusive<u64>> {
        let register = |offset| u64::from(self.function.read_config(offset));
        let pciexbar = register(PCIEXBAR_HIGH) << 32 | register(PCIEXBAR);
        let size: u64 = match pciexbar >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = pciexbar & PCIEXBAR_BITS & !(size - 1);
        (pciexbar & PCIEXBAR_ENABLE != 0).then_some(base..=base + (size - 1))
    }

    fn move_window(&self) {
        self.window.set(self.window_range());
    }
}

impl ChipsetDevice for HostBridge {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::pci(Self::ADDRESS)
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
        Ok(self.function.read_config(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.function.write_config(offset, value, mask);
        self.move_window();
        Ok(())
    }

    fn reset(&mut self) {
        self.function.reset();
        self.move_window();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&State {
            function: self.function.save(),
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        self.function.restore(&state.function)?;
        self.move_window();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let window = self.window_range();
        json!({
            "function": self.function.inspect(),
            "ecam": window.map(|range| format!("{:#x}-{:#x}", range.start(), range.end())),
        })
    }
}
