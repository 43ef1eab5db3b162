//! Finding the OVMF builds that distributions install.

use std::path::Path;
use std::path::PathBuf;

/// Code and the template of its variable store, in order of preference. Builds that need System Management Mode
/// are left out.
const PLACES: &[(&str, Option<&str>)] = &[
    // Debian, Ubuntu
    (
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        Some("usr/share/OVMF/OVMF_VARS_4M.fd"),
    ),
    // Arch
    (
        "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        Some("usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ),
    // openSUSE
    (
        "usr/share/qemu/ovmf-x86_64-4m-code.bin",
        Some("usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ),
    (
        "usr/share/qemu/ovmf-x86_64-code.bin",
        Some("usr/share/qemu/ovmf-x86_64-vars.bin"),
    ),
    // Fedora, RHEL
    (
        "usr/share/edk2/ovmf/OVMF_CODE.fd",
        Some("usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ),
    // Older Debian, Fedora
    (
        "usr/share/OVMF/OVMF_CODE.fd",
        Some("usr/share/OVMF/OVMF_VARS.fd"),
    ),
    // Gentoo, older Arch
    (
        "usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        Some("usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ),
    (
        "usr/share/edk2-ovmf/OVMF_CODE.fd",
        Some("usr/share/edk2-ovmf/OVMF_VARS.fd"),
    ),
    // QEMU's own
    (
        "usr/share/qemu/edk2-x86_64-code.fd",
        Some("usr/share/qemu/edk2-i386-vars.fd"),
    ),
    // Both in one
    ("usr/share/ovmf/OVMF.fd", None),
    ("usr/share/OVMF/OVMF.fd", None),
];

/// Installed firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The file with the code.
    pub code: PathBuf,
    /// The template of its variable store, if there is one. A file with code and variables needs none.
    pub template: Option<PathBuf>,
}

/// The firmware installed below `root` (`/`), in order of preference.
pub fn installed(root: &Path) -> impl Iterator<Item = Installed> {
    PLACES.iter().filter_map(move |(code, template)| {
        let code = root.join(code);
        let template = template.map(|template| root.join(template));
        code.is_file().then(|| Installed {
            code,
            template: template.filter(|template| template.is_file()),
        })
    })
}

/// The paths that [`installed`] tries below `/`, for the error when there is none.
pub fn searched_places() -> impl Iterator<Item = PathBuf> {
    PLACES.iter().map(|(code, _)| Path::new("/").join(code))
}

/// The template of the variable store in the same folder as the code, with a matching name:
/// `OVMF_VARS_4M.fd` for `OVMF_CODE_4M.fd`.
pub fn template_beside(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    let pairs = [
        ("CODE", "VARS"),
        ("code", "vars"),
        ("x86_64-code", "i386-vars"),
    ];
    pairs
        .iter()
        .filter(|(code, _)| name.contains(code))
        .map(|(from, to)| code.with_file_name(name.replacen(from, to, 1)))
        .find(|template| template.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn builds_come_in_order_of_preference() {
        let root = root_with(&[
            "usr/share/ovmf/OVMF.fd",
            "usr/share/OVMF/OVMF_CODE.fd",
            "usr/share/OVMF/OVMF_VARS.fd",
            "usr/share/OVMF/OVMF_CODE_4M.fd",
        ]);
        let found: Vec<_> = installed(root.path()).collect();
        let at = |path: &str| root.path().join("usr/share").join(path);
        let expected = [
            (at("OVMF/OVMF_CODE_4M.fd"), None),
            (at("OVMF/OVMF_CODE.fd"), Some(at("OVMF/OVMF_VARS.fd"))),
            (at("ovmf/OVMF.fd"), None),
        ];
        assert_eq!(
            found,
            expected.map(|(code, template)| Installed { code, template })
        );
        let empty = root_with(&[]);
        assert_eq!(installed(empty.path()).count(), 0);
    }

    #[test]
    fn a_template_is_found_by_the_name_of_its_code() {
        let root = root_with(&["OVMF_VARS_4M.fd", "edk2-i386-vars.fd", "x-vars.bin"]);
        let beside = |code: &str| {
            let found = template_beside(&root.path().join(code))?;
            Some(found.file_name()?.to_str()?.to_owned())
        };
        assert_eq!(beside("OVMF_CODE_4M.fd").unwrap(), "OVMF_VARS_4M.fd");
        assert_eq!(beside("edk2-x86_64-code.fd").unwrap(), "edk2-i386-vars.fd");
        assert_eq!(beside("x-code.bin").unwrap(), "x-vars.bin");
        assert_eq!(beside("OVMF_CODE.fd"), None);
        assert_eq!(beside("OVMF.fd"), None);
    }
}
