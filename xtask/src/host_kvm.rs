//! Detects which KVM this machine has.

use std::fmt;
use std::io;
use std::path::Path;

/// The kind of KVM behind `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKvm {
    /// Intel's virtual machine extensions.
    Vmx,
    /// AMD's secure virtual machine.
    Svm,
    /// A KVM without hardware support, which emulates or paravirtualizes guests: slow and incomplete.
    Software,
    /// There is no `/dev/kvm`.
    Absent,
    /// `/dev/kvm` exists, but we may not open it.
    NotPermitted,
}

impl HostKvm {
    /// Detects the KVM of this machine.
    pub(crate) fn detect() -> Self {
        let opened = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop);
        Self::classify(opened, Path::new("/sys/module"))
    }

    fn classify(opened: io::Result<()>, modules: &Path) -> Self {
        match opened {
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => Self::NotPermitted,
            Err(_) => Self::Absent,
            Ok(()) if modules.join("kvm_intel").exists() => Self::Vmx,
            Ok(()) if modules.join("kvm_amd").exists() => Self::Svm,
            Ok(()) => Self::Software,
        }
    }

    /// Whether guests can run directly and fast.
    pub(crate) fn is_hardware(self) -> bool {
        matches!(self, Self::Vmx | Self::Svm)
    }
}

impl fmt::Display for HostKvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "KVM on Intel VMX",
            Self::Svm => "KVM on AMD SVM",
            Self::Software => "a software KVM (neither kvm_intel nor kvm_amd is loaded)",
            Self::Absent => "no /dev/kvm",
            Self::NotPermitted => "no permission to open /dev/kvm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_vendor_module_tells_hardware_from_software() {
        let modules = tempfile::tempdir().unwrap();
        fs::create_dir(modules.path().join("kvm")).unwrap();
        fs::create_dir(modules.path().join("kvm_pvm")).unwrap();
        let classify = || HostKvm::classify(Ok(()), modules.path());
        assert_eq!(classify(), HostKvm::Software);
        fs::create_dir(modules.path().join("kvm_amd")).unwrap();
        assert_eq!(classify(), HostKvm::Svm);
        fs::create_dir(modules.path().join("kvm_intel")).unwrap();
        assert_eq!(classify(), HostKvm::Vmx);
    }

    #[test]
    fn a_forbidden_device_is_not_a_missing_one() {
        let modules = Path::new("/nonexistent");
        let classify = |kind: io::ErrorKind| HostKvm::classify(Err(kind.into()), modules);
        assert_eq!(classify(io::ErrorKind::NotFound), HostKvm::Absent);
        assert_eq!(
            classify(io::ErrorKind::PermissionDenied),
            HostKvm::NotPermitted
        );
    }
}
