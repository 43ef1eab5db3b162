//! Whether a saved machine's guest finds its processor's features on this host.

use super::MachineError;
use machine_parts::saved_processor;
use openvmm_defs::start::SavedMachine;
use std::fmt::Write as _;
use virt::Hypervisor;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::x86::CpuidEntry;

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

/// The registers of a CPUID leaf.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    fn of(self, entry: &CpuidEntry) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }
}

/// Registers of which each bit is a feature: leaf, subleaf, register, and the bits that are none. Those depend on what the
/// guest does (OSXSAVE, OSPKE) or on its topology (HTT, CMP_LEGACY).
const FEATURES: &[(u32, u32, Register, u32)] = &[
    (1, 0, Register::Ecx, 1 << 27),
    (1, 0, Register::Edx, 1 << 28),
    (7, 0, Register::Ebx, 0),
    (7, 0, Register::Ecx, 1 << 4),
    (7, 0, Register::Edx, 0),
    (7, 1, Register::Eax, 0),
    (7, 1, Register::Edx, 0),
    (0xd, 0, Register::Eax, 0),
    (0xd, 1, Register::Eax, 0),
    (0x4000_0001, 0, Register::Eax, 0),
    (0x8000_0001, 0, Register::Ecx, 1 << 1),
    (0x8000_0001, 0, Register::Edx, 0),
    (0x8000_0007, 0, Register::Edx, 0),
    (0x8000_0008, 0, Register::Ebx, 0),
];

/// Names of features that operating systems use most, as Linux has them.
const NAMES: &[(u32, u32, Register, u32, &str)] = &[
    (1, 0, Register::Ecx, 0, "sse3"),
    (1, 0, Register::Ecx, 1, "pclmulqdq"),
    (1, 0, Register::Ecx, 5, "vmx"),
    (1, 0, Register::Ecx, 9, "ssse3"),
    (1, 0, Register::Ecx, 12, "fma"),
    (1, 0, Register::Ecx, 13, "cx16"),
    (1, 0, Register::Ecx, 17, "pcid"),
    (1, 0, Register::Ecx, 19, "sse4_1"),
    (1, 0, Register::Ecx, 20, "sse4_2"),
    (1, 0, Register::Ecx, 21, "x2apic"),
    (1, 0, Register::Ecx, 22, "movbe"),
    (1, 0, Register::Ecx, 23, "popcnt"),
    (1, 0, Register::Ecx, 24, "tsc_deadline_timer"),
    (1, 0, Register::Ecx, 25, "aes"),
    (1, 0, Register::Ecx, 26, "xsave"),
    (1, 0, Register::Ecx, 28, "avx"),
    (1, 0, Register::Ecx, 29, "f16c"),
    (1, 0, Register::Ecx, 30, "rdrand"),
    (7, 0, Register::Ebx, 0, "fsgsbase"),
    (7, 0, Register::Ebx, 1, "tsc_adjust"),
    (7, 0, Register::Ebx, 3, "bmi1"),
    (7, 0, Register::Ebx, 5, "avx2"),
    (7, 0, Register::Ebx, 7, "smep"),
    (7, 0, Register::Ebx, 8, "bmi2"),
    (7, 0, Register::Ebx, 9, "erms"),
    (7, 0, Register::Ebx, 10, "invpcid"),
    (7, 0, Register::Ebx, 16, "avx512f"),
    (7, 0, Register::Ebx, 18, "rdseed"),
    (7, 0, Register::Ebx, 19, "adx"),
    (7, 0, Register::Ebx, 20, "smap"),
    (7, 0, Register::Ebx, 29, "sha_ni"),
    (7, 0, Register::Ecx, 2, "umip"),
    (7, 0, Register::Ecx, 3, "pku"),
    (7, 0, Register::Ecx, 16, "la57"),
    (0xd, 1, Register::Eax, 3, "xsaves"),
    (0x8000_0001, 0, Register::Ecx, 2, "svm"),
    (0x8000_0001, 0, Register::Edx, 26, "pdpe1gb"),
    (0x8000_0001, 0, Register::Edx, 27, "rdtscp"),
    (0x8000_0001, 0, Register::Edx, 29, "lm"),
];

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
    Ok(compare(&processor.cpuid, &host.cpuid)?)
}

fn compare(saved: &[CpuidEntry], host: &[CpuidEntry]) -> Result<(), ProcessorError> {
    if let (Some(saved), Some(host)) = (vendor(saved), vendor(host))
        && saved != host
    {
        return Err(ProcessorError::Vendor { saved, host });
    }
    let mut missing = Vec::new();
    for &(leaf, subleaf, register, ignored) in FEATURES {
        let bits = |table: &[CpuidEntry]| {
            let entry = find(table, leaf, subleaf);
            entry.map_or(0, |entry| register.of(entry) & !ignored)
        };
        let lacking = bits(saved) & !bits(host);
        for bit in (0..32).filter(|bit| lacking >> bit & 1 != 0) {
            let named = NAMES
                .iter()
                .find(|name| (name.0, name.1, name.2, name.3) == (leaf, subleaf, register, bit));
            missing.push(match named {
                Some((.., name)) => (*name).to_owned(),
                None => format!("CPUID {leaf:#x}.{subleaf} {register:?} bit {bit}"),
            });
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(ProcessorError::Missing(missing)),
    }
}

fn find(table: &[CpuidEntry], leaf: u32, subleaf: u32) -> Option<&CpuidEntry> {
    table
        .iter()
        .find(|entry| entry.leaf == leaf && entry.subleaf.unwrap_or(0) == subleaf)
}

/// The vendor that leaf 0 names.
pub(crate) fn vendor(table: &[CpuidEntry]) -> Option<String> {
    let entry = find(table, 0, 0)?;
    let name = [entry.ebx, entry.edx, entry.ecx].map(u32::to_le_bytes);
    Some(text(&name.concat()))
}

/// The model that leaves 0x80000002 to 0x80000004 name.
pub(crate) fn model(table: &[CpuidEntry]) -> Option<String> {
    let mut name = Vec::new();
    for leaf in 0x8000_0002..=0x8000_0004 {
        let entry = find(table, leaf, 0)?;
        for register in [entry.eax, entry.ebx, entry.ecx, entry.edx] {
            name.extend(register.to_le_bytes());
        }
    }
    Some(text(&name))
}

/// A name in CPUID. What is no printable character is shown as a number.
fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes.iter().take_while(|byte| **byte != 0) {
        match byte {
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(vendor: &[u8; 12], ecx: u32, leaf7: u32) -> Vec<CpuidEntry> {
        let word = |n: usize| u32::from_le_bytes(std::array::from_fn(|byte| vendor[4 * n + byte]));
        vec![
            CpuidEntry {
                ebx: word(0),
                edx: word(1),
                ecx: word(2),
                ..CpuidEntry::default()
            },
            CpuidEntry {
                leaf: 1,
                ecx,
                ..CpuidEntry::default()
            },
            CpuidEntry {
                leaf: 7,
                subleaf: Some(0),
                ebx: leaf7,
                ..CpuidEntry::default()
            },
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
        let names = ["avx", "avx2", "CPUID 0x7.0 Ebx bit 6"];
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

    #[test]
    fn names_are_text() {
        assert_eq!(
            vendor(&table(b"GenuineIntel", 0, 0)).unwrap(),
            "GenuineIntel"
        );
        assert_eq!(
            vendor(&table(b"a\x07bcdefghi\0\0", 0, 0)).unwrap(),
            "a\\x07bcdefghi"
        );
        assert_eq!((vendor(&[]), model(&[])), (None, None));
    }
}
