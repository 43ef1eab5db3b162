//! The program: parses the command line and does what it asks for.

use crate::cli::CliCommand;
use crate::cli::HibernationCommand;
use crate::cli::Options;
use crate::console;
use crate::exit::ExitCode;
use crate::head_start;
use crate::hibernation;
use crate::log;
use crate::run;
use crate::terminal;
use clap::CommandFactory;
use clap::Parser;
use virt_kvm::HeadStart;

/// Runs openvmm and ends the process with one of the documented exit codes.
pub fn main() -> ! {
    terminal::restore_on_panic();
    let head_start = head_start::is_useful().then(HeadStart::begin);
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Printing fails if the output is closed; that must not be a panic. Help and version are not failures.
            let _ = error.print();
            std::process::exit(match error.use_stderr() {
                true => ExitCode::CONFIG.0,
                false => 0,
            });
        }
    };
    if let Some(shell) = options.completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Options::command(), "openvmm", &mut script);
        console::print_text(&String::from_utf8_lossy(&script));
        std::process::exit(0);
    }
    if let Err(error) = log::start() {
        eprintln!("error: {error}");
        std::process::exit(ExitCode::CONFIG.0);
    }
    if let Some(CliCommand::Hibernation { command }) = &options.command {
        let HibernationCommand::Status { vmgs, json } = command;
        std::process::exit(hibernation::status(vmgs, *json).0);
    }
    let check_only = options.check_config;
    let exit = match options.resolve() {
        Err(errors) => {
            eprint!("{errors}");
            ExitCode::CONFIG
        }
        Ok(_) if check_only => {
            console::print_text("the configuration is valid\n");
            ExitCode::SUCCESS
        }
        Ok(invocation) => run::run(&invocation, head_start),
    };
    terminal::restore();
    std::process::exit(exit.0)
}
