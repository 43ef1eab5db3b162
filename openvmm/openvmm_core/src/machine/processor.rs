//! Whether a saved machine's guest finds its processor's features on this host.

use super::MachineError;
use super::view;
use machine_parts::saved_processor;
use openvmm_defs::start::SavedMachine;
use platform_digest::CpuidLeaf;
use platform_digest::cpu_features;
use virt::Hypervisor;
use virt::ProcessorFeatures;
use virt::Topology;

/// Why a saved machine cannot run on this host's processors. Nothing was created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// The processors are of another vendor.
    #[error(
        "the saved machine ran on processors of {saved}, and this host's are of {host}: restore it on a host like the first"
    )]
    Vendor {
        /// The saved machine's.
        saved: String,
        /// This host's.
        host: String,
    },
    /// The host lacks features that the guest may use.
    #[error(
        "the saved machine's guest was told of processor features that this host does not have: {}",
        .0.join(", ")
    )]
    Missing(Vec<String>),
}

/// Whether the guest of `saved` finds on this host what its processors told it. Features that the host has more do no
/// harm: the guest goes on with the table that it knows.
pub(crate) fn check(
    hypervisor: &dyn Hypervisor,
    topology: &Topology,
    features: &ProcessorFeatures,
    saved: &SavedMachine,
) -> Result<(), MachineError> {
    // A state that is missing or damaged is refused, by name, when it is restored.
    let processor = saved.units.get("vps").map(saved_processor);
    let Some(Ok(Some(processor))) = processor else {
        return Ok(());
    };
    let host = hypervisor.guest_processor(topology, features)?;
    Ok(compare(
        &view::cpuid(&processor.cpuid),
        &view::cpuid(&host.cpuid),
    )?)
}

fn compare(saved: &[CpuidLeaf], host: &[CpuidLeaf]) -> Result<(), ProcessorError> {
    if let (Some(saved), Some(host)) = (cpu_features::vendor(saved), cpu_features::vendor(host))
        && saved != host
    {
        return Err(ProcessorError::Vendor { saved, host });
    }
    let missing = cpu_features::lost(saved, host);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(ProcessorError::Missing(missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(vendor: &[u8; 12], ecx: u32, leaf7: u32) -> Vec<CpuidLeaf> {
        let word = |n: usize| u32::from_le_bytes(std::array::from_fn(|byte| vendor[4 * n + byte]));
        let leaf = |leaf, subleaf, registers| CpuidLeaf {
            leaf,
            subleaf,
            registers,
        };
        vec![
            leaf(0, None, [0, word(0), word(2), word(1)]),
            leaf(1, None, [0, 0, ecx, 0]),
            leaf(7, Some(0), [0, leaf7, 0, 0]),
        ]
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let amd = |ecx, leaf7| table(b"AuthenticAMD", ecx, leaf7);
        let saved = amd(1 << 28 | 1 << 27 | 1, 1 << 5 | 1 << 6);
        assert_eq!(compare(&saved, &saved), Ok(()));
        let more = amd(!0, !0);
        assert_eq!(compare(&saved, &more), Ok(()));
        let missing = compare(&saved, &amd(1, 0)).unwrap_err();
        let names = ["avx", "avx2", "CPUID 0x7.0 EBX bit 6"];
        assert_eq!(
            missing,
            ProcessorError::Missing(names.map(str::to_owned).into())
        );
        let missing = compare(&saved, &more[..2]).unwrap_err();
        assert!(matches!(missing, ProcessorError::Missing(_)), "{missing}");
        let intel = compare(&saved, &table(b"GenuineIntel", !0, !0)).unwrap_err();
        let text = intel.to_string();
        assert!(
            text.contains("AuthenticAMD") && text.contains("GenuineIntel"),
            "{text}"
        );
    }
}
