//! The command line and the interactive console of openvmm.
#![forbid(unsafe_code)]

mod cli;
mod console;
mod control;
mod events;
mod exit;
mod hibernation;
mod log;
mod run;
mod terminal;

use clap::CommandFactory;
use clap::Parser;
use cli::Command;
use cli::HibernationCommand;
use cli::Options;
use exit::Exit;
use virt_kvm::HeadStart;

/// Runs openvmm, and ends the process with one of the documented exit codes.
pub fn main() -> ! {
    terminal::restore_on_panic();
    let head_start = run::is_likely().then(HeadStart::begin);
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no errors. A closed output is no reason to panic.
            let _ = error.print();
            std::process::exit(match error.use_stderr() {
                true => Exit::Config.code(),
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
        std::process::exit(Exit::Config.code());
    }
    if let Some(Command::Hibernation { command }) = &options.command {
        let HibernationCommand::Status { vmgs, json } = command;
        std::process::exit(hibernation::status(vmgs, *json).code());
    }
    let check_only = options.check_config;
    let exit = match options.resolve() {
        Err(errors) => {
            eprint!("{errors}");
            Exit::Config
        }
        Ok(_) if check_only => {
            console::print_text("the configuration is good\n");
            Exit::PowerOff
        }
        Ok(invocation) => run::run(&invocation, head_start),
    };
    terminal::restore();
    std::process::exit(exit.code())
}
