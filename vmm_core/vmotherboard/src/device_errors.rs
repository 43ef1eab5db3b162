use crate::AttachedDevice;
use chipset_device::IoError;
use log_limit::LogLimit;

/// Logs accesses that devices reject, at a limited rate.
#[derive(Default)]
pub(crate) struct DeviceErrors(LogLimit);

impl DeviceErrors {
    #[cold]
    pub(crate) fn log(
        &self,
        device: &AttachedDevice,
        access: &'static str,
        address: u64,
        len: usize,
        error: IoError,
    ) {
        if let Some(suppressed) = self.0.allow() {
            let (device, address) = (device.name(), format_args!("{address:#x}"));
            tracing::warn!(
                device,
                access,
                address,
                len,
                suppressed,
                %error,
                "the device rejected the access"
            );
        }
    }
}
