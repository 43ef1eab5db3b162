//! The value of `--vmgs`: `PATH`, `file:PATH`, `mem:SIZE` or `memdiff:file:PATH`, and a flag after a comma.

use super::Options;
use super::config::Errors;
use super::files::check_if_exists;
use super::size::parse_size;
use host_file::Allowed;
use openvmm_defs::config::VmgsMemory;
use openvmm_defs::start::FormatVmgs;
use std::path::PathBuf;

/// Where the VM's state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// In a file.
    File(PathBuf),
    /// In memory, until the VM ends.
    Memory {
        /// The size in bytes; the default where `None`.
        size: Option<u64>,
    },
    /// In memory, over what is in a file.
    Overlay(PathBuf),
}

/// When a store is made anew.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum StoreFormat {
    /// When there is none.
    IfEmpty,
    /// Also when it is damaged.
    IfDamaged,
    /// Always.
    Always,
}

/// The value of `--vmgs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreSpec {
    pub(crate) kind: StoreKind,
    pub(crate) format: StoreFormat,
}

/// The size that stands for the default.
const DEFAULT_SIZE: &str = "VMGS_DEFAULT";

/// The size of a new store in memory, which is that of a new file.
const NEW_SIZE: u64 = 64 << 20;

/// Where the VM's state is kept, as a configuration says it.
#[derive(Debug, Default)]
pub(super) struct StoreOptions {
    pub(super) path: Option<PathBuf>,
    pub(super) memory: Option<VmgsMemory>,
    pub(super) format: Option<FormatVmgs>,
}

impl Options {
    /// Where the VM's state is kept.
    pub(super) fn store_options(&self, errors: &mut Errors) -> StoreOptions {
        let spec = self
            .vmgs
            .as_deref()
            .and_then(|text| errors.take("--vmgs", parse_store(text).map(Some), None));
        let Some(StoreSpec { kind, format }) = spec else {
            return StoreOptions::default();
        };
        let (path, memory) = match kind {
            StoreKind::File(path) => (Some(path), None),
            StoreKind::Memory { size } => (None, Some(VmgsMemory::New(size.unwrap_or(NEW_SIZE)))),
            StoreKind::Overlay(path) => (Some(path), Some(VmgsMemory::Overlay)),
        };
        if let Some(path) = &path {
            check_if_exists(errors, "--vmgs", path, Allowed::RegularOrBlock);
            if path.is_symlink() && !path.exists() {
                errors.add(format!(
                    "--vmgs: {} is a link to nothing; make the file, or remove the link",
                    path.display()
                ));
            }
        }
        StoreOptions {
            path,
            memory,
            format: match format {
                StoreFormat::IfEmpty => None,
                StoreFormat::IfDamaged => Some(FormatVmgs::IfDamaged),
                StoreFormat::Always => Some(FormatVmgs::Always),
            },
        }
    }
}

/// Reads the value of `--vmgs`.
pub(crate) fn parse_store(text: &str) -> Result<StoreSpec, String> {
    // A doubled comma is one in the path.
    const COMMA: &str = "\0";
    let text = text.replace(",,", COMMA);
    let (kind, flag) = match text.split_once(',') {
        Some((kind, flag)) => (kind, Some(flag)),
        None => (&*text, None),
    };
    let kind = kind.replace(COMMA, ",");
    let format = match flag {
        None => StoreFormat::IfEmpty,
        Some("fmt") => StoreFormat::Always,
        Some("fmt-on-fail") => StoreFormat::IfDamaged,
        Some(flag) => {
            return Err(format!(
                "'{}' is not one of fmt, fmt-on-fail (double a comma in a path)",
                flag.replace(COMMA, ",,")
            ));
        }
    };
    let path = |path: &str| match path {
        "" => Err("a path is needed".to_owned()),
        path => Ok(PathBuf::from(path)),
    };
    let kind = if let Some(size) = kind.strip_prefix("mem:") {
        StoreKind::Memory {
            size: match size {
                DEFAULT_SIZE => None,
                size => Some(parse_size(size)?),
            },
        }
    } else if let Some(lower) = kind.strip_prefix("memdiff:") {
        StoreKind::Overlay(path(lower.strip_prefix("file:").unwrap_or(lower))?)
    } else {
        StoreKind::File(path(kind.strip_prefix("file:").unwrap_or(&kind))?)
    };
    Ok(StoreSpec { kind, format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_flag_is_read() {
        let file = |path: &str| StoreKind::File(path.into());
        let memory = |size| StoreKind::Memory { size };
        for (text, kind, format) in [
            ("a.vmgs", file("a.vmgs"), StoreFormat::IfEmpty),
            ("file:a.vmgs", file("a.vmgs"), StoreFormat::IfEmpty),
            ("a,,b.vmgs", file("a,b.vmgs"), StoreFormat::IfEmpty),
            ("file:/x,fmt", file("/x"), StoreFormat::Always),
            ("/x,fmt-on-fail", file("/x"), StoreFormat::IfDamaged),
            ("mem:4M", memory(Some(4 << 20)), StoreFormat::IfEmpty),
            ("mem:VMGS_DEFAULT", memory(None), StoreFormat::IfEmpty),
            (
                "memdiff:file:/x",
                StoreKind::Overlay("/x".into()),
                StoreFormat::IfEmpty,
            ),
        ] {
            assert_eq!(parse_store(text), Ok(StoreSpec { kind, format }), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "file:",
            "mem:",
            "mem:lots",
            "memdiff:file:",
            "/x,ro",
            "/x,fmt,fmt",
        ] {
            assert!(parse_store(text).is_err(), "{text}");
        }
    }
}
