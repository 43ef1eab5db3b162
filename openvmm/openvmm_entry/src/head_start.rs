//! Decides, before the command line is parsed, whether to open the hypervisor meanwhile.

use std::ffi::OsString;

/// Whether the process's arguments look like those of a VM. A wrong guess costs time, nothing else.
pub(crate) fn is_useful() -> bool {
    std::env::args_os()
        .skip(1)
        .any(|argument| selects_boot(&argument))
}

/// Whether an argument looks like an option that selects what to boot: `--kernel`, `--uefi`, `--uefi-…`, `--igvm`, `--restore-snapshot`, or `-k` or `-e`,
/// alone or after short flags that take no value: `-PMk`. It may still be the value of another option.
fn selects_boot(argument: &OsString) -> bool {
    let argument = argument.to_string_lossy();
    match argument.strip_prefix('-') {
        None => false,
        Some(short) if !short.starts_with('-') => {
            short.trim_start_matches(['P', 'M']).starts_with(['k', 'e'])
        }
        Some(long) => ["-kernel", "-uefi", "-igvm", "-restore-snapshot"]
            .iter()
            .any(|option| long.starts_with(option)),
    }
}

#[cfg(test)]
#[path = "head_start_test.rs"]
mod tests;
