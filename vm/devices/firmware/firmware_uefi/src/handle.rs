//! The device as plain data.

use crate::device::FirmwareUefi;
use crate::diagnostics::LogLevel;
use crate::platform::FirmwareReportSink;
use crate::platform::Platform;
use chipset::pm::PmControl;
use chipset::rtc::WallClock;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::MsiTarget;
use chipset_device::shared;
use generation_id::GENERATION_ID_LEN;
use guest_memory::GuestMemory;
use minicbor::Decode;
use minicbor::Encode;
use std::sync::Arc;
use uefi_nvram::MemoryNvram;
use uefi_nvram::NvramStorage;
use uefi_nvram::SecureBoot;
use uefi_nvram::VariableServices;
use uefi_nvram::VmgsNvram;
use vmgs_broker::VmgsClient;
use vmtime::VmClock;

/// The general-purpose event that tells of a new generation ID.
const GENERATION_ID_EVENT: u8 = 0;

/// Where the variables are kept.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NvramPlace {
    /// Nowhere: they are lost when the VM ends.
    #[n(1)]
    Memory,
    /// The VM's VMGS store.
    #[n(2)]
    Vmgs,
}

/// The device. It asks for guest memory, the power-management block's control, the VM's clock and MSIs, for the client of
/// the VMGS store if variables are kept there, and for a [`FirmwareReportSink`] if there is one. It offers
/// [`FirmwareControl`](crate::FirmwareControl).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FirmwareUefiHandle {
    /// Where the variables are kept.
    #[n(1)]
    pub nvram: NvramPlace,
    /// What the variables start with.
    #[n(2)]
    pub secure_boot: SecureBoot,
    /// Which lines of the firmware's log get into the host's.
    #[n(3)]
    pub log_level: LogLevel,
    /// The generation ID of a new VM, in the byte order of guest memory.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub generation_id: [u8; GENERATION_ID_LEN],
}

impl DeviceHandle for FirmwareUefiHandle {
    const ID: &'static str = "firmware-uefi";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let (storage, file): (Box<dyn NvramStorage>, _) = match self.nvram {
            NvramPlace::Memory => (Box::new(MemoryNvram), None),
            NvramPlace::Vmgs => {
                let (storage, file) = VmgsNvram::open(machine.get::<VmgsClient>()?.clone())?;
                (Box::new(storage), file)
            }
        };
        let variables = VariableServices::new(storage, file.as_deref(), &self.secure_boot)?;
        let reports = machine.get::<FirmwareReportSink>();
        let platform = Platform {
            memory: machine.get::<GuestMemory>()?.clone(),
            clock: machine.get::<VmClock>()?.clone(),
            wall: WallClock::host(),
            generation_event: machine.get::<PmControl>()?.gpe(GENERATION_ID_EVENT),
            interrupts: machine.get::<Arc<dyn MsiTarget>>()?.clone(),
            reports: reports.map_or_else(|_| FirmwareReportSink::none(), Clone::clone),
            waker: machine.waker.clone(),
        };
        let device = FirmwareUefi::new(platform, variables, self.generation_id, self.log_level);
        machine.services.offer(device.control());
        Ok(shared(device))
    }
}
