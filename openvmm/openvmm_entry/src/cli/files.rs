//! Checks of the files that the options name.

use super::EventsTarget;
use super::Options;
use super::config::Errors;
use super::vmgs::StoreOptions;
use file_identity::FileUse;
use host_file::Allowed;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::UefiVariables;
use std::io;
use std::path::Path;

const JSON_EVENTS: &str = "--json-events";

/// Reports a file that cannot be read, or is of another type than one that is allowed.
pub(super) fn check_readable(errors: &mut Errors, option: &str, path: &Path) {
    if let Err(error) = host_file::open_input(path, Allowed::Regular) {
        errors.add(format!("{option}: cannot read {}: {error}", path.display()));
    }
}

/// Reports a file that exists and is of another type than one that is allowed.
pub(super) fn check_if_exists(errors: &mut Errors, option: &str, path: &Path, allowed: Allowed) {
    match host_file::open_input(path, allowed) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            errors.add(format!("{option}: cannot use {}: {error}", path.display()));
        }
        _ => {}
    }
}

/// Reports the first file that is written and named twice, through whatever names. The process's own streams count: a disk
/// or a kernel that is also standard output would be overwritten.
pub(super) fn check_distinct(
    errors: &mut Errors,
    files: &[FileUse],
    events: Option<&EventsTarget>,
) {
    let mut result = file_identity::check_distinct(files);
    let streams = [
        ("standard output", "/proc/self/fd/1"),
        ("standard error", "/proc/self/fd/2"),
    ];
    for (stream, path) in streams {
        // All streams that the process was started with may go to one file, as with `>log 2>&1`.
        let inherited = matches!(events, Some(EventsTarget::Descriptor(_)));
        let others = files
            .iter()
            .filter(|file| !(inherited && file.what == JSON_EVENTS));
        let uses: Vec<_> = others
            .cloned()
            .chain([FileUse::write(stream, path)])
            .collect();
        result = result.and_then(|()| file_identity::check_distinct(&uses));
    }
    if let Err(shared) = result {
        errors.add(shared.to_string());
    }
}

impl Options {
    /// The files that the process uses, whatever the VM is.
    pub(super) fn session_files(&self, events: Option<&EventsTarget>) -> Vec<FileUse> {
        let mut files = Vec::new();
        for (option, path) in [("--pidfile", &self.pidfile), ("--log-file", &self.log_file)] {
            files.extend(path.iter().map(|path| FileUse::write(option, path)));
        }
        let events = events.map(|target| match target {
            EventsTarget::File(path) => path.clone(),
            EventsTarget::Descriptor(fd) => format!("/proc/self/fd/{fd}").into(),
        });
        files.extend(events.map(|path| FileUse::write(JSON_EVENTS, path)));
        files
    }

    /// The files that the VM uses, besides those of its devices.
    pub(super) fn used_files(
        &self,
        memory: Option<&MemoryConfig>,
        store: &StoreOptions,
        load_mode: Option<&LoadMode>,
    ) -> Vec<FileUse> {
        let mut files = Vec::new();
        for (option, path) in [("--kernel", &self.kernel), ("--initrd", &self.initrd)] {
            files.extend(path.iter().map(|path| FileUse::read(option, path)));
        }
        files.extend(self.igvm_file().map(|path| FileUse::read("--igvm", path)));
        if let Some(LoadMode::PcUefi(uefi)) = load_mode {
            files.push(FileUse::read("the firmware", &uefi.code));
            match &uefi.variables {
                UefiVariables::File(path) => files.push(FileUse::write("--uefi-vars", path)),
                UefiVariables::Memory(Some(path)) => {
                    files.push(FileUse::read("the firmware's variables", path));
                }
                UefiVariables::Memory(None) | UefiVariables::Vmgs => {}
            }
        }
        if let Some(LoadMode::HypervUefi(uefi)) = load_mode {
            files.push(FileUse::read("the firmware", &uefi.firmware));
        }
        let json = self.custom_uefi_json.iter();
        files.extend(json.map(|path| FileUse::read("--custom-uefi-json", path)));
        files.extend(store.path.as_ref().map(|path| match store.memory {
            Some(_) => FileUse::read("--vmgs", path),
            None => FileUse::write("--vmgs", path),
        }));
        let memory = memory.and_then(|memory| memory.file.as_deref());
        files.extend(memory.map(|path| FileUse::write("--memory", path)));
        files
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
