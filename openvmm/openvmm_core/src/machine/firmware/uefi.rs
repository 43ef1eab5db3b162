//! UEFI firmware of the OVMF family: what runs, where its variables are kept, and what it is told.

use super::SESSION_UNIT;
use super::session::FirmwareSession;
use super::session::HibernationSink;
use super::session::LoadedFirmware;
use super::session::SessionConfig;
use super::uefi_devices::UefiDevices;
use super::uefi_devices::VariableStorage;
use super::uefi_devices::Variables;
use crate::machine::devices::DevicePlan;
use crate::machine::inventory;
use crate::machine::plan::MachineShape;
use crate::machine::view;
use crate::machine::vmgs_store::PlannedStore;
use acpi_spec::TableSet;
use firmware_hibernation::Refusal;
use flash::FileStorage;
use flash::FileStorageError;
use flash::VmgsStorage;
use flash::VmgsStorageError;
use fw_cfg::FwCfgBuilder;
use fw_cfg::ItemContent;
use fw_cfg::e820_ram_entry;
use guest_memory::MemoryLayout;
use openvmm_defs::config::PcUefi;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::start::Start;
use ovmf_image::FirmwareFile;
use ovmf_image::FirmwareFileError;
use ovmf_image::FirmwareKind;
use ovmf_image::ImageError;
use ovmf_image::Ovmf;
use ovmf_image::SmmError;
use ovmf_image::VariablesError;
use ovmf_image::VariablesState;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use virt::Topology;

/// Why UEFI firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UefiError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file is no firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareFileError),
    /// The file is firmware for another kind of machine.
    #[error(
        "{} is firmware for generation-2 VMs of Hyper-V, which this machine profile is not",
        path.display()
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// The firmware does not run without SMM.
    #[error("{} cannot be used", path.display())]
    Smm {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SmmError,
    },
    /// What was stored for a hibernated guest is no firmware.
    #[error("the stored firmware is not what it was taken for")]
    Stored(#[source] ImageError),
    /// The file with the variables cannot be used.
    #[error(transparent)]
    VariablesFile(#[from] FileStorageError),
    /// The variables in the VMGS file cannot be used.
    #[error(transparent)]
    VariablesInVmgs(#[from] VmgsStorageError),
    /// The variables are not the firmware's.
    #[error(
        "the variables in {} cannot be used (to begin with new ones, copy the VARS file that goes with the firmware)",
        path.display()
    )]
    Variables {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: VariablesError,
    },
    /// Variables are to be kept in a VMGS file, and there is none.
    #[error("there is no VMGS file for the firmware's variables")]
    NoVmgs,
    /// A hibernated guest's firmware cannot be put back.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The saved machine has no firmware.
    #[error("the saved machine has no unit `{SESSION_UNIT}`: it ran without UEFI firmware")]
    NoSavedSession,
    /// The saved firmware session cannot be restored.
    #[error("the saved firmware session cannot be restored")]
    SavedSession(#[from] mesh::saved_state::RestoreError),
    /// What the firmware is told cannot be put together.
    #[error("the firmware configuration device cannot be made")]
    FwCfg(#[from] fw_cfg::FwCfgError),
    /// The ACPI tables cannot be handed to the firmware.
    #[error("the ACPI tables cannot be handed to the firmware")]
    Acpi(#[from] acpi_spec::AcpiError),
    /// The SMBIOS structures cannot be made.
    #[error("the SMBIOS structures cannot be made")]
    Smbios(#[from] smbios::SmbiosError),
}

/// UEFI firmware, and the devices that belong to it.
pub(crate) struct UefiPlan {
    pub session: FirmwareSession,
    pub devices: UefiDevices,
}

impl UefiPlan {
    /// Decides which firmware runs and checks everything that can be checked before the machine is built.
    pub(crate) fn new(
        uefi: &PcUefi,
        machine: &MachineShape<'_>,
        devices: &DevicePlan,
        tables: &TableSet,
        store: Option<&PlannedStore>,
        start: &Start,
        events: HibernationSink,
    ) -> Result<Self, UefiError> {
        let files = firmware_files(machine, tables)?;
        let view = view::platform_view(
            devices,
            machine.topology,
            machine.layout,
            machine.address_bits,
            &files,
        );
        let config = SessionConfig {
            hibernation: machine.config.hibernation,
            requested: match start {
                Start::Boot(options) => options.hibernation_override,
                Start::Restore(_) => None,
            },
            view,
            storage: store.map(PlannedStore::storage),
            sequence_note: store.and_then(PlannedStore::sequence_note),
            events,
        };
        let session = match start {
            Start::Boot(_) => FirmwareSession::plan(config, || {
                Ok::<_, UefiError>(LoadedFirmware {
                    code: host_code(&uefi.code)?.into(),
                    files,
                })
            })?,
            Start::Restore(saved) => {
                let state = saved.get(SESSION_UNIT).ok_or(UefiError::NoSavedSession)?;
                FirmwareSession::resume(config, state)?
            }
        };
        let loaded = session.loaded();
        let ovmf = match FirmwareKind::recognize(&loaded.code) {
            Ok(FirmwareKind::Ovmf(ovmf)) => ovmf,
            Ok(FirmwareKind::Msvm { .. }) => {
                return Err(UefiError::OtherMachine {
                    path: uefi.code.clone(),
                });
            }
            Err(error) => return Err(UefiError::Stored(error)),
        };
        let variables = variables(uefi, &ovmf, store)?;
        let fw_cfg = fw_cfg(uefi, machine.topology, &loaded.files)?;
        let devices = UefiDevices {
            code: loaded.code.clone(),
            variables,
            fw_cfg,
            generation_id: inventory::generation_id(machine.config.uuid),
        };
        Ok(Self { session, devices })
    }
}

/// The code in the host's firmware file.
fn host_code(path: &Path) -> Result<Vec<u8>, UefiError> {
    let file = FirmwareFile::open(path)?;
    let FirmwareKind::Ovmf(ovmf) = file.kind() else {
        return Err(UefiError::OtherMachine { path: path.into() });
    };
    let code = file.region(&ovmf.code);
    ovmf_image::runs_without_smm(code).map_err(|source| UefiError::Smm {
        path: path.into(),
        source,
    })?;
    Ok(code.to_vec())
}

/// What the firmware is told about the machine, by name.
fn firmware_files(
    machine: &MachineShape<'_>,
    tables: &TableSet,
) -> Result<BTreeMap<String, Vec<u8>>, UefiError> {
    let mut files = BTreeMap::new();
    for file in tables.loader_files()? {
        files.insert(file.name.to_owned(), file.bytes);
    }
    let smbios =
        inventory::smbios(machine.config.uuid, machine.topology, machine.layout).build()?;
    files.insert(smbios::ANCHOR_FILE.to_owned(), smbios.anchor);
    files.insert(smbios::TABLES_FILE.to_owned(), smbios.tables);
    files.insert("etc/e820".to_owned(), e820(machine.layout));
    Ok(files)
}

/// RAM. A file as any other, so that it can be kept for a hibernated guest.
fn e820(layout: &MemoryLayout) -> Vec<u8> {
    let ram = layout.ram().iter();
    ram.flat_map(|ram| e820_ram_entry(ram.start, ram.len()))
        .collect()
}

fn fw_cfg(
    uefi: &PcUefi,
    topology: &Topology,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<FwCfgBuilder, UefiError> {
    let mut fw_cfg = FwCfgBuilder::new().boot_cpu_count(topology.vps().len() as u16)?;
    for (name, bytes) in files {
        fw_cfg = fw_cfg.add_file(name, bytes.clone())?;
    }
    if let Some(kernel) = &uefi.kernel {
        fw_cfg = fw_cfg.kernel(&content(&kernel.kernel)?, &kernel.cmdline)?;
        if let Some(initrd) = &kernel.initrd {
            fw_cfg = fw_cfg.initrd(content(initrd)?)?;
        }
    }
    Ok(fw_cfg)
}

fn content(path: &Path) -> Result<ItemContent, UefiError> {
    let content = File::open(path).and_then(ItemContent::file);
    content.map_err(|source| UefiError::Read {
        path: path.into(),
        source,
    })
}

/// The variables; `None` if the firmware keeps none.
fn variables(
    uefi: &PcUefi,
    ovmf: &Ovmf,
    store: Option<&PlannedStore>,
) -> Result<Option<Variables>, UefiError> {
    if ovmf.variables_len == 0 {
        return Ok(None);
    }
    let (content, storage) = match &uefi.variables {
        UefiVariables::File(path) => {
            let (storage, content) = FileStorage::open(path)?;
            check(path, &content, ovmf)?;
            (content, VariableStorage::File(storage))
        }
        UefiVariables::Memory(template) => {
            let content = match template {
                Some(path) => {
                    let content = read(path)?;
                    check(path, &content, ovmf)?;
                    content
                }
                None => new_variables(&uefi.code, ovmf),
            };
            (content, VariableStorage::Memory)
        }
        UefiVariables::Vmgs => {
            let stored = match store.ok_or(UefiError::NoVmgs)?.client() {
                Some(client) => pal_async::block_on(VmgsStorage::open(client.clone()))?.1,
                None => None,
            };
            let content = match stored {
                Some(content) if content.len() as u64 == ovmf.variables_len => content,
                Some(content) => {
                    tracing::warn!(
                        stored = content.len(),
                        expected = ovmf.variables_len,
                        "the firmware is another build and cannot read its predecessor's variables: \
                         it begins with new ones"
                    );
                    new_variables(&uefi.code, ovmf)
                }
                None => new_variables(&uefi.code, ovmf),
            };
            (content, VariableStorage::Vmgs)
        }
    };
    Ok(Some(Variables { content, storage }))
}

fn read(path: &Path) -> Result<Vec<u8>, UefiError> {
    std::fs::read(path).map_err(|source| UefiError::Read {
        path: path.into(),
        source,
    })
}

fn check(path: &Path, content: &[u8], ovmf: &Ovmf) -> Result<(), UefiError> {
    match ovmf_image::check_variables(content, ovmf.variables_len) {
        Ok(VariablesState::Intact) => Ok(()),
        Ok(VariablesState::Interrupted) => {
            tracing::warn!(
                path = %path.display(),
                "the variables were being rewritten when the VM last ended; the firmware repairs that"
            );
            Ok(())
        }
        Err(source) => Err(UefiError::Variables {
            path: path.into(),
            source,
        }),
    }
}

/// Variables to begin with: the template in the firmware's file or beside it, if it fits. Erased flash otherwise,
/// which firmware formats, does without, or (Debian's OVMF) does not start on.
fn new_variables(code: &Path, ovmf: &Ovmf) -> Vec<u8> {
    let within = FirmwareFile::open(code).ok().and_then(|file| {
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
    within
        .or_else(beside)
        .filter(|template| ovmf_image::check_variables(template, ovmf.variables_len).is_ok())
        .unwrap_or_else(|| {
            tracing::warn!(
                firmware = %code.display(),
                "no template of the variables goes with the firmware: they begin as erased flash, on which some builds \
                 of OVMF do not start; --uefi-vars names a copy of the template to begin with"
            );
            vec![0xff; ovmf.variables_len as usize]
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_has_an_entry_for_each_range() {
        let layout = MemoryLayout::new(4 << 30, 0xb000_0000, 40).unwrap();
        let map = e820(&layout);
        assert_eq!(map.len(), 40);
        assert_eq!(map[8..16], 0xb000_0000_u64.to_le_bytes());
        assert_eq!(map[20..28], (1_u64 << 32).to_le_bytes());
    }
}
