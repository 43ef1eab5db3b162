use crate::DeviceHandle;
use crate::rate_limit::RateLimit;
use chipset_device::IoError;

/// Logs the accesses that devices do not take, at a limited rate.
#[derive(Default)]
pub(crate) struct DeviceErrors(RateLimit);

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
        if let Some(suppressed) = self.0.pass() {
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
