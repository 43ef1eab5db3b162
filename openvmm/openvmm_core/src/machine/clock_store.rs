//! The real-time clock's state in the VMGS store.

use chipset::rtc::CMOS_SIZE;
use chipset::rtc::KeptClock;
use chipset::rtc::RtcBattery;
use error_chain::Chain;
use pal_async::block_on;
use vmgs::Commit;
use vmgs::Protection;
use vmgs_broker::BrokerError;
use vmgs_broker::VmgsClient;
use vmgs_format::FileId;

/// The clock's battery: file `RTC_SKEW` has the guest's time minus the host's, in units of 100 ns, as the reference has
/// it, and `CMOS_RAM` the RAM. What cannot be used is said, and the clock starts with the host's time.
pub(crate) fn battery(client: VmgsClient) -> RtcBattery {
    let skew = read(&client, FileId::RTC_SKEW).map(i64::from_le_bytes);
    let cmos = read::<CMOS_SIZE>(&client, FileId::CMOS_RAM);
    // Either may be there without the other: the reference keeps no RAM.
    let kept = (skew.is_some() || cmos.is_some()).then(|| KeptClock {
        skew: skew.unwrap_or(0),
        cmos: cmos.unwrap_or(DEFAULT_CMOS),
    });
    RtcBattery::new(kept, move |KeptClock { skew, cmos }| {
        let skew = skew.to_le_bytes().to_vec();
        let commit = Commit::new()
            .write(FileId::RTC_SKEW, Protection::Plain, skew)
            .write(FileId::CMOS_RAM, Protection::IfEncrypted, cmos.to_vec());
        Ok(block_on(client.commit(commit))?)
    })
}

/// RAM of zeroes, and hours from 0 to 23.
const DEFAULT_CMOS: [u8; CMOS_SIZE] = {
    let mut cmos = [0; CMOS_SIZE];
    cmos[0x0b] = 0x02;
    cmos
};

/// The content of a file of `N` bytes, if it is there and can be used.
fn read<const N: usize>(client: &VmgsClient, id: FileId) -> Option<[u8; N]> {
    let unusable = |reason: String| {
        tracing::warn!(file = %id, reason, "the guest's clock was kept, and cannot be used");
        None
    };
    let wrong = |len: u64| format!("the file has {len} bytes instead of {N}");
    let content = block_on(client.file_info(id)).and_then(|info| {
        // A file of another length is not read.
        match info.valid_bytes == N as u64 {
            true => Ok(Ok(block_on(client.read(id))?)),
            false => Ok(Err(info.valid_bytes)),
        }
    });
    match content {
        Ok(Ok(bytes)) => match bytes.try_into() {
            Ok(bytes) => Some(bytes),
            Err(bytes) => unusable(wrong(bytes.len() as u64)),
        },
        Ok(Err(len)) => unusable(wrong(len)),
        Err(error) if BrokerError::is_not_allocated(&error) => None,
        Err(error) => unusable(Chain(&error).to_string()),
    }
}

#[cfg(test)]
#[path = "clock_store_test.rs"]
mod tests;
