//! Pseudo-terminals, to run openvmm as a user does.

use anyhow::Context;
use rustix::pty::OpenptFlags;
use std::fs::File;
use std::process::Command;

/// Opens a new terminal. Returns its controlling side and the side for a program.
pub(crate) fn open() -> anyhow::Result<(File, File)> {
    let controller =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("cannot open a terminal")?;
    rustix::pty::unlockpt(&controller).context("cannot unlock the terminal")?;
    let name = rustix::pty::ptsname(&controller, Vec::new()).context("the terminal has no name")?;
    let program = File::options()
        .read(true)
        .write(true)
        .open(name.to_str()?)
        .with_context(|| format!("cannot open {}", name.to_string_lossy()))?;
    Ok((File::from(controller), program))
}

/// A command that makes its standard input its controlling terminal before it becomes `program`.
pub(crate) fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new("setsid");
    command.arg("-c").arg(program);
    command
}
