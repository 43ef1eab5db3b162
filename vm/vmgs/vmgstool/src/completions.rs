//! Shell completion scripts.

use crate::cli::Cli;
use clap::CommandFactory;
use std::io::Write;

pub(crate) fn print(shell: clap_complete::Shell, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vmgstool", &mut script);
    out.write_all(&script)?;
    Ok(())
}
