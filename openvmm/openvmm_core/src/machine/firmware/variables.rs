//! The variables of UEFI firmware: their content at the start, and where they are kept.

use super::FirmwareSource;
use super::PcFirmware;
use crate::machine::vmgs_store::PlannedStore;
use flash::FileStorage;
use flash::FileStorageError;
use flash::VmgsStorage;
use flash::VmgsStorageError;
use openvmm_defs::config::UefiVariables;
use ovmf_image::FirmwareKind;
use ovmf_image::Ovmf;
use ovmf_image::VariablesState;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The content of the variables at the start, and where it is kept.
pub(crate) struct Variables {
    pub content: Vec<u8>,
    pub storage: VariableStorage,
}

/// Where variables are kept.
pub(crate) enum VariableStorage {
    File(FileStorage),
    Memory,
    /// The VM's VMGS store.
    Vmgs,
}

/// Why variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// The template cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// The file with the variables cannot be used.
    #[error(transparent)]
    File(#[from] FileStorageError),
    /// The variables in the VMGS file cannot be used.
    #[error(transparent)]
    Vmgs(#[from] VmgsStorageError),
    /// The file does not hold variables of the firmware.
    #[error(
        "the variables in {} cannot be used (to start with new ones, copy the VARS file that belongs to the firmware)",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: ovmf_image::VariablesError,
    },
    /// The VMGS file does not hold variables of PC firmware.
    #[error(
        "the variables in file {file} of the VMGS file cannot be used (to start with new ones, delete them: \
         vmgstool delete -i {file})",
        file = VmgsStorage::FILE
    )]
    Stored(#[source] ovmf_image::VariablesError),
    /// There is no template, and the build is not known.
    #[error(
        "the firmware {} has a variable store of {len} bytes, and its template is neither in the file nor beside it: \
         give a copy of the template with --uefi-vars",
        firmware.display()
    )]
    NoTemplate {
        /// The firmware.
        firmware: PathBuf,
        /// The size of its store in bytes.
        len: u64,
    },
    /// Variables are to be kept in a VMGS file, and there is none.
    #[error("there is no VMGS file for the firmware's variables")]
    NoVmgs,
}

impl Variables {
    /// The variables of `ovmf`; `None` if the firmware keeps none. Nothing is written.
    pub(crate) fn plan(
        firmware: &PcFirmware<'_>,
        ovmf: &Ovmf,
        store: Option<&PlannedStore>,
    ) -> Result<Option<Self>, VariablesError> {
        let PcFirmware { uefi, source } = firmware;
        if ovmf.variables_len == 0 {
            return Ok(None);
        }
        let (content, storage) = match &uefi.variables {
            UefiVariables::File(path) => {
                let (storage, content) = FileStorage::open(path)?;
                (Some((path, content)), VariableStorage::File(storage))
            }
            UefiVariables::Memory(None) => (None, VariableStorage::Memory),
            UefiVariables::Memory(Some(path)) => {
                let content = std::fs::read(path).map_err(|source| VariablesError::Read {
                    path: path.into(),
                    source,
                })?;
                (Some((path, content)), VariableStorage::Memory)
            }
            UefiVariables::Vmgs => {
                let store = store.ok_or(VariablesError::NoVmgs)?;
                let content = stored(store, ovmf)?;
                let content = match content {
                    Some(content) => content,
                    None => new_variables(source, ovmf)?,
                };
                let storage = VariableStorage::Vmgs;
                return Ok(Some(Self { content, storage }));
            }
        };
        let content = match content {
            Some((path, content)) => {
                check(&content, ovmf.variables_len, &path.display()).map_err(|source| {
                    VariablesError::Content {
                        path: path.into(),
                        source,
                    }
                })?;
                content
            }
            None => new_variables(source, ovmf)?,
        };
        Ok(Some(Self { content, storage }))
    }
}

/// The variables in the VMGS store, if it has some of the firmware's size.
fn stored(store: &PlannedStore, ovmf: &Ovmf) -> Result<Option<Vec<u8>>, VariablesError> {
    let Some(client) = store.client() else {
        return Ok(None);
    };
    let (_, content) = pal_async::block_on(VmgsStorage::open(client.clone()))?;
    let Some(content) = content else {
        return Ok(None);
    };
    // What is not the variables of any build is refused, and not replaced.
    let len = content.len() as u64;
    check(&content, len, &"the VMGS file").map_err(VariablesError::Stored)?;
    if len != ovmf.variables_len {
        tracing::warn!(
            stored = len,
            expected = ovmf.variables_len,
            "the firmware is another build, which cannot read the stored variables: it starts with new ones"
        );
        return Ok(None);
    }
    Ok(Some(content))
}

/// Checks variables that must have `len` bytes, and are in `place`.
fn check(
    content: &[u8],
    len: u64,
    place: &dyn fmt::Display,
) -> Result<(), ovmf_image::VariablesError> {
    if ovmf_image::check_variables(content, len)? == VariablesState::Interrupted {
        tracing::warn!(
            %place,
            "the variables were being rewritten when the VM last ended; the firmware repairs that"
        );
    }
    Ok(())
}

/// New variables: the template in the firmware's file or beside it, if it fits; otherwise a store as the template of such a
/// build has it.
fn new_variables(source: &FirmwareSource<'_>, ovmf: &Ovmf) -> Result<Vec<u8>, VariablesError> {
    let code = source.path();
    let within = source.open().ok().and_then(|file| {
        let FirmwareKind::Ovmf(Ovmf {
            template: Some(template),
            ..
        }) = file.kind()
        else {
            return None;
        };
        Some(file.region(template).to_vec())
    });
    let beside = || std::fs::read(ovmf_image::template_beside(code)?).ok();
    let template = within
        .or_else(beside)
        .filter(|template| ovmf_image::check_variables(template, ovmf.variables_len).is_ok());
    if let Some(template) = template {
        return Ok(template);
    }
    tracing::info!(
        firmware = %code.display(),
        "no template of the variables belongs to the firmware: it starts with a new, empty store"
    );
    ovmf_image::fresh_variables(ovmf.variables_len).ok_or_else(|| VariablesError::NoTemplate {
        firmware: code.into(),
        len: ovmf.variables_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::test_bench::ACCESS;
    use crate::machine::test_bench::Bench;
    use crate::machine::test_bench::Files;
    use openvmm_defs::start::Start;
    use ovmf_image::FirmwareFile;
    use ovmf_image::constructed;
    use ovmf_image::constructed::Smm;
    use virt::IrqchipMode;

    /// New variables for a build that is alone in its folder.
    fn alone(image: &[u8]) -> Result<Vec<u8>, VariablesError> {
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join("OVMF_CODE.fd");
        std::fs::write(&code, image).unwrap();
        let file = FirmwareFile::open(&code).unwrap();
        let FirmwareKind::Ovmf(ovmf) = file.kind() else {
            panic!("{:?}", file.kind());
        };
        new_variables(&FirmwareSource::File(code.clone()), ovmf)
    }

    #[test]
    fn a_build_without_a_template_starts_with_an_empty_store() {
        for (flash, variables) in [
            (1 << 20, 0x2_0000),
            (2 << 20, 0x2_0000),
            (4 << 20, 0x8_4000),
        ] {
            let new = alone(&constructed::code(flash, Smm::Without)).unwrap();
            assert!(new == constructed::variables(variables), "{flash:#x}");
        }
        // One with its template.
        let mut image = constructed::combined(2 << 20, Smm::Without);
        image[0x100] = 7;
        assert!(alone(&image).unwrap() == image[..0x2_0000]);
        // A layout that is not known.
        let code = constructed::code(2 << 20, Smm::Without);
        let error = alone(&[code.clone(), code].concat()).unwrap_err();
        assert!(
            matches!(error, VariablesError::NoTemplate { len: 0x4_0000, .. }),
            "{error}"
        );
    }

    #[test]
    fn stored_variables_of_the_same_build_are_kept() {
        let files = Files::new();
        let config = files.config(files.uefi(), IrqchipMode::Kernel);
        Bench::boot(&config).end(&config);
        let device =
            vmgs::FileDevice::open(&files.path("vm.vmgs"), vmgs::Container::Detect, ACCESS);
        let options = vmgs::OpenOptions::default();
        let mut store = vmgs::Vmgs::open(Box::new(device.unwrap()), options).unwrap();
        let mut mine = constructed::variables(0x8_4000);
        mine[0x100] = 7;
        let plain = vmgs::Protection::Plain;
        store.write(VmgsStorage::FILE, plain, &mine).unwrap();
        drop(store);
        let file = FirmwareFile::open(&files.path("OVMF_CODE.fd")).unwrap();
        let FirmwareKind::Ovmf(ovmf) = file.kind() else {
            panic!("{:?}", file.kind());
        };
        let planned = PlannedStore::new(&config, &Start::default(), None).unwrap();
        let planned = planned.unwrap();
        assert!(stored(&planned, ovmf).unwrap() == Some(mine));
        let other = Ovmf {
            variables_len: 0x2_0000,
            ..ovmf.clone()
        };
        assert!(stored(&planned, &other).unwrap().is_none());
    }

    #[test]
    fn a_template_that_does_not_fit_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join("OVMF_CODE.fd");
        std::fs::write(&code, constructed::code(2 << 20, Smm::Without)).unwrap();
        let template = folder.path().join("OVMF_VARS.fd");
        let source = FirmwareSource::File(code.clone());
        let ovmf = |len| Ovmf {
            variables_len: len,
            ..match FirmwareFile::open(&code).unwrap().kind() {
                FirmwareKind::Ovmf(ovmf) => ovmf.clone(),
                kind => panic!("{kind:?}"),
            }
        };
        let mut mine = constructed::variables(0x2_0000);
        mine[0x100] = 7;
        std::fs::write(&template, &mine).unwrap();
        assert!(new_variables(&source, &ovmf(0x2_0000)).unwrap() == mine);
        // The code is that of a hibernated guest, of another build.
        let fresh = constructed::variables(0x8_4000);
        assert!(new_variables(&source, &ovmf(0x8_4000)).unwrap() == fresh);
        std::fs::write(&template, vec![0; 0x2_0000]).unwrap();
        let fresh = constructed::variables(0x2_0000);
        assert!(new_variables(&source, &ovmf(0x2_0000)).unwrap() == fresh);
    }
}
