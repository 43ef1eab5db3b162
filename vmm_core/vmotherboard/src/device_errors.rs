use crate::DeviceHandle;
use chipset_device::IoError;
use log_limit::LogLimit;

/// Logs the accesses that devices do not take, at a limited rate.
#[derive(Default)]
pub(crate) struct DeviceErrors(LogLimit);

impl DeviceErrors {
    #[cold]
    pub(crate) fn note(
        &self,
        device: &DeviceHandle,
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
                "the device does not take the access"
            );
        }
    }
}
