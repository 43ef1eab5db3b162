//! The program: parses the command line and does what it asks for.

use crate::cli::CliCommand;
use crate::cli::HibernationCommand;
use crate::cli::Options;
use crate::cli::unsupported;
use crate::exit::ExitCode;
use crate::head_start;
use crate::hibernation;
use crate::log;
use crate::message;
use crate::message::message;
use crate::run;
use crate::snapshot;
use crate::terminal;
use crate::terminal::signals;
use crate::terminal::signals::Ignored;
use clap::CommandFactory;
use std::io;
use std::io::Write;
use virt_kvm::HeadStart;

/// Runs openvmm and ends the process with one of the documented exit codes.
pub fn main() -> ! {
    let ignored = Ignored::at_start();
    terminal::restore_on_panic();
    if let Err(error) = signals::install(ignored) {
        message!("warning: cannot handle signals: {error}");
    }
    let exit = run_command(ignored);
    terminal::restore();
    std::process::exit(exit.0)
}

fn run_command(ignored: Ignored) -> ExitCode {
    let head_start = head_start::is_useful().then(HeadStart::begin);
    let options = match Options::parse_given(std::env::args_os()) {
        Ok(options) => options,
        Err(error) => return explain_usage(&error),
    };
    if let Some(shell) = options.completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Options::command(), "openvmm", &mut script);
        return message::to_stdout(&String::from_utf8_lossy(&script));
    }
    let filter = match log::filter() {
        Ok(filter) => filter,
        Err(error) => return explain_log(&error),
    };
    if let Some(CliCommand::Hibernation { command }) = &options.command {
        let HibernationCommand::Status { vmgs, json } = command;
        return match log::start(filter, None) {
            Ok(()) => hibernation::status(vmgs, *json),
            Err(error) => explain_log(&error),
        };
    }
    if let Some(CliCommand::Snapshot { command }) = &options.command {
        return match log::start(filter, None) {
            Ok(()) => snapshot::run(command),
            Err(error) => explain_log(&error),
        };
    }
    let check_only = options.check_config;
    let invocation = match options.resolve() {
        Err(errors) => {
            message!("{}", errors.to_string().trim_end());
            return ExitCode::CONFIG;
        }
        Ok(_) if check_only => return message::to_stdout("the configuration is valid\n"),
        Ok(invocation) => invocation,
    };
    // After all checks, because the log replaces a file.
    if let Err(error) = log::start(filter, invocation.log_file.as_deref()) {
        return explain_log(&error);
    }
    run::run(&invocation, head_start, ignored)
}

fn explain_log(error: &log::LogError) -> ExitCode {
    message!("error: {}", error.message);
    error.exit
}

/// Prints help or the version, or what is wrong with the command line.
fn explain_usage(error: &clap::Error) -> ExitCode {
    if let Some(answer) = unsupported::answer(error) {
        message!("error: {answer}");
        return ExitCode::CONFIG;
    }
    // Styled for the stream it goes to by clap, which can fail but does not panic.
    let printed = error.print().and_then(|()| io::stdout().flush());
    match (printed, error.use_stderr()) {
        (_, true) => ExitCode::CONFIG,
        (Ok(()), false) => ExitCode::SUCCESS,
        (Err(failure), false) => {
            message!("error: cannot write to standard output: {failure}");
            ExitCode::FAILURE
        }
    }
}
