//! The value of `--memory`: `SIZE` or `size=SIZE`, and keys after commas. Older options for single keys are read here too.

use super::Options;
use super::config::Errors;
use super::size::parse_size;
use openvmm_defs::config::HostPages;
use openvmm_defs::config::MemoryConfig;
use openvmm_defs::config::Population;
use openvmm_defs::config::Sharing;
use std::path::PathBuf;

/// The size of guest RAM if none is given.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The page sizes that `hugepage_size` selects.
const HUGE_PAGE_SIZES: [(u64, HostPages); 2] =
    [(2 << 20, HostPages::Huge), (1 << 30, HostPages::Huge1G)];

/// The keys, as they are given.
#[derive(Debug, Default)]
struct Keys {
    size: Option<u64>,
    file: Option<PathBuf>,
    shared: Option<bool>,
    prefetch: Option<bool>,
    thp: Option<bool>,
    hugepages: Option<bool>,
    hugepage_size: Option<u64>,
}

impl Options {
    pub(super) fn memory(&self, errors: &mut Errors) -> Option<MemoryConfig> {
        let mut keys = errors.take("--memory", parse_keys(&self.memory).map(Some), None)?;
        let file = self.memory_backing_file.clone();
        let shared = match (self.shared_memory, self.private_memory) {
            (true, true) => {
                errors.add("--private-memory: --shared-memory says the opposite");
                None
            }
            (shared, private) => (shared || private).then_some(shared),
        };
        let flag = |given: bool| given.then_some(true);
        for result in [
            add("--memory-backing-file", "file", &mut keys.file, file),
            add(
                "--shared-memory, --private-memory",
                "shared",
                &mut keys.shared,
                shared,
            ),
            add(
                "--prefetch",
                "prefetch",
                &mut keys.prefetch,
                flag(self.prefetch),
            ),
            add("--thp", "thp", &mut keys.thp, flag(self.thp)),
        ] {
            if let Err(error) = result {
                errors.add(error);
            }
        }
        let memory = errors.take("--memory", keys.resolve().map(Some), None)?;
        if let Some(file) = &memory.file {
            super::files::check_if_exists(errors, "--memory", file, host_file::Allowed::Regular);
        }
        Some(memory)
    }
}

/// Adds what an option of its own says to a key of `--memory`.
fn add<T>(option: &str, key: &str, slot: &mut Option<T>, value: Option<T>) -> Result<(), String> {
    match (&slot, value) {
        (_, None) => Ok(()),
        (Some(_), Some(_)) => Err(format!("{option}: --memory has {key}= already")),
        (None, value) => {
            *slot = value;
            Ok(())
        }
    }
}

fn parse_keys(text: &str) -> Result<Keys, String> {
    let mut keys = Keys::default();
    for (n, part) in text.split(',').enumerate() {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (part, None),
        };
        match (key, value) {
            ("size", Some(value)) => set_once(&mut keys.size, key, parse_size(value)?)?,
            ("file", Some("")) => return Err("file= needs a path".into()),
            ("file", Some(value)) => set_once(&mut keys.file, key, PathBuf::from(value))?,
            ("shared", value) => set_once(&mut keys.shared, key, switch(key, value)?)?,
            ("thp", value) => set_once(&mut keys.thp, key, switch(key, value)?)?,
            ("hugepages", value) => set_once(&mut keys.hugepages, key, switch(key, value)?)?,
            ("prefetch" | "prealloc", value) => {
                set_once(&mut keys.prefetch, key, switch(key, value)?)?;
            }
            ("hugepage_size", Some(value)) => {
                set_once(&mut keys.hugepage_size, key, parse_size(value)?)?;
            }
            (_, None) if n == 0 => set_once(&mut keys.size, "size", parse_size(part)?)?,
            _ => {
                return Err(format!(
                    "'{part}' is not one of size=SIZE, file=PATH, shared[=on|off], prefetch[=on|off], thp[=on|off], \
                     hugepages[=on|off], hugepage_size=2M|1G"
                ));
            }
        }
    }
    Ok(keys)
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(value) => Err(format!("{key}={value} is neither {key}=on nor {key}=off")),
    }
}

fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is given twice")),
    }
}

impl Keys {
    fn resolve(self) -> Result<MemoryConfig, String> {
        let pages = match (self.hugepages, self.hugepage_size, self.thp) {
            (Some(true), _, Some(true)) => {
                return Err(
                    "hugepages and thp=on cannot be combined: the pool's pages are huge already"
                        .into(),
                );
            }
            (Some(true), size, _) => {
                let size = size.unwrap_or(HUGE_PAGE_SIZES[0].0);
                let pages = HUGE_PAGE_SIZES.iter().find(|(known, _)| *known == size);
                pages.ok_or("hugepage_size is 2M or 1G")?.1
            }
            (_, Some(_), _) => return Err("hugepage_size= needs hugepages=on".into()),
            (_, None, Some(false)) => HostPages::Small,
            (_, None, _) => HostPages::Default,
        };
        if self.file.is_some() {
            if self.hugepages == Some(true) {
                return Err(
                    "hugepages and file= cannot be combined: huge pages come from the host's pool; give one of the two"
                        .into(),
                );
            }
            if self.shared == Some(false) {
                return Err(
                    "shared=off and file= cannot be combined: what the guest writes is in the file"
                        .into(),
                );
            }
        }
        Ok(MemoryConfig {
            size: self.size.unwrap_or(DEFAULT_SIZE),
            file: self.file,
            pages,
            population: match self.prefetch {
                Some(true) => Population::Prealloc,
                _ => Population::OnDemand,
            },
            sharing: match self.shared {
                Some(true) => Some(Sharing::Shared),
                _ => None,
            },
        })
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
