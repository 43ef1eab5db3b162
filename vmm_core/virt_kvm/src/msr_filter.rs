//! MSRs whose guest accesses leave to the VMM although KVM knows them.

use kvm_bindings::KVM_MSR_FILTER_MAX_RANGES;
use kvm_ioctls::MsrFilterDefaultAction;
use kvm_ioctls::MsrFilterRange;
use kvm_ioctls::MsrFilterRangeFlags;
use kvm_ioctls::VmFd;
use std::ops::RangeInclusive;
use virt::Error;

/// The x2APIC's registers, which KVM never filters.
const X2APIC: RangeInclusive<u32> = 0x800..=0x8ff;

/// MSRs that one filter range can cover.
const MAX_RANGE: u32 = 0x3000;

/// Splits `intercepts` into filter ranges of base and count.
pub(crate) fn split(intercepts: &[RangeInclusive<u32>]) -> Result<Vec<(u32, u32)>, Error> {
    let mut ranges = Vec::new();
    for range in intercepts {
        let (start, end) = (*range.start(), *range.end());
        if start > end || (start <= *X2APIC.end() && end >= *X2APIC.start()) {
            return Err(Error::InvalidRequest(format!(
                "MSRs {start:#x} to {end:#x} cannot be intercepted"
            )));
        }
        let mut base = start;
        loop {
            let last = base.saturating_add(MAX_RANGE - 1).min(end);
            ranges.push((base, last - base + 1));
            if ranges.len() > KVM_MSR_FILTER_MAX_RANGES as usize {
                return Err(Error::InvalidRequest(
                    "more MSRs to intercept than KVM's filter holds".to_string(),
                ));
            }
            if last == end {
                break;
            }
            base = last + 1;
        }
    }
    Ok(ranges)
}

/// Makes guest accesses to `intercepts` exit.
pub(crate) fn install(vm: &VmFd, intercepts: &[RangeInclusive<u32>]) -> Result<(), Error> {
    if intercepts.is_empty() {
        return Ok(());
    }
    // A clear bit denies the access, which makes it exit.
    let denied = [0u8; MAX_RANGE as usize / 8];
    let ranges = split(intercepts)?
        .into_iter()
        .map(|(base, msr_count)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base,
            msr_count,
            bitmap: &denied[..msr_count.div_ceil(8) as usize],
        })
        .collect::<Vec<_>>();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .map_err(|e| Error::call("set the MSR filter", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_to_what_the_filter_holds() {
        assert_eq!(split(&[0x10..=0x10]).unwrap(), [(0x10, 1)]);
        assert_eq!(
            split(&[0x4000_0000..=0x4000_3000]).unwrap(),
            [(0x4000_0000, 0x3000), (0x4000_3000, 1)]
        );
        assert_eq!(split(&[u32::MAX..=u32::MAX]).unwrap(), [(u32::MAX, 1)]);
    }

    #[test]
    fn what_cannot_be_filtered_is_refused() {
        assert!(split(&[0x700..=0x800]).is_err());
        assert!(split(&[0x1000..=u32::MAX]).is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
        let empty = 2..=1;
        assert!(split(&[empty]).is_err());
    }
}
