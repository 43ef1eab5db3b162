//! The command `vmgstool`, which inspects and edits VMGS guest-state files.
#![forbid(unsafe_code)]

mod cli;
mod completions;
mod create;
mod decode;
mod device_path_text;
mod exit;
mod file_uses;
mod files;
mod firmware;
mod flash_variables;
mod headers;
mod igvm;
mod input;
mod keys;
mod kind;
mod legacy;
mod list;
mod maintain;
mod nvram;
mod nvram_json;
mod nvram_text;
mod open;
mod output;
mod stdout;
mod test_stores;

use crate::stdout::StandardOutput;
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs the command with the arguments of the process.
pub fn main() -> ExitCode {
    // A limit on the size of files (RLIMIT_FSIZE) is then an error of the write, and does not end the tool.
    if let Err(error) = signal_hook::flag::register(
        signal_hook::consts::SIGXFSZ,
        Arc::new(AtomicBool::new(false)),
    ) {
        complain(&format!("handling SIGXFSZ: {error}"));
    }
    let mut out = StandardOutput::new(std::io::stdout());
    let (args, legacy) = legacy::translate(std::env::args_os().collect());
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => return ExitCode::from(show(&answer, &mut out)),
    };
    let filter = if cli.verbose {
        Targets::new().with_default(LevelFilter::TRACE)
    } else {
        Targets::new()
            .with_target("vmgstool", LevelFilter::INFO)
            .with_default(LevelFilter::WARN)
    };
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                // It would report that standard error cannot be written on standard error, and panic.
                .log_internal_errors(false)
                .with_ansi(false),
        )
        .with(filter)
        .init();
    if legacy {
        tracing::warn!("options with a single dash are deprecated");
    }
    let result = file_uses::check_standard_output(&cli.command);
    let result = result.and_then(|()| run_cli(&cli, &mut out));
    ExitCode::from(finish(result, &mut out))
}

/// Shows the parser's answer: help or the version on standard output, an error on standard error. Returns the exit
/// code.
fn show(answer: &clap::Error, out: &mut dyn Write) -> u8 {
    let code = u8::try_from(answer.exit_code()).unwrap_or(exit::FAILURE);
    let shown = answer.print();
    if answer.use_stderr() {
        return code;
    }
    match shown.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&error.to_string());
            exit::FAILURE
        }
        _ => code,
    }
}

/// Says something before logs are set up.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "vmgstool: {message}");
}

/// Runs the command with these arguments, the first of which is its name, and returns the exit code. Standard
/// output goes to `out`.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write) -> u8 {
    let (args, _) = legacy::translate(args.into_iter().collect());
    match cli::Cli::try_parse_from(args) {
        Ok(cli) => finish(run_cli(&cli, out), out),
        Err(error) => u8::try_from(error.exit_code()).unwrap_or(exit::FAILURE),
    }
}

/// Flushes the output, reports errors, and returns the exit code.
fn finish(mut result: anyhow::Result<()>, out: &mut dyn Write) -> u8 {
    let flushed = out.flush();
    // An answer that was not written has not been given.
    if result.as_ref().err().is_none_or(exit::is_answer)
        && let Err(error) = flushed
    {
        result = Err(error.into());
    }
    match result {
        Ok(()) => 0,
        Err(error) => exit::report(&error),
    }
}

fn run_cli(cli: &cli::Cli, out: &mut dyn Write) -> anyhow::Result<()> {
    use cli::Command as C;
    let opener = open::Opener {
        container: cli.container(),
    };
    let json = cli.json;
    file_uses::check(&cli.command)?;
    match &cli.command {
        C::Create(args) => create::create(opener, args),
        C::Write(args) => files::write(opener, args),
        C::Inject(args) => files::inject(opener, args),
        C::Dump(args) => files::dump(opener, args, json, out),
        C::Extract(args) => files::extract(opener, args, file_uses::of(&cli.command)),
        C::DumpHeaders(args) => list::dump_headers(opener, args, json, out),
        C::QuerySize(args) => list::query_size(opener, args, json, out),
        C::UpdateKey(args) => keys::update_key(opener, args),
        C::Encrypt(args) => keys::encrypt(opener, args),
        C::Rekey(args) => keys::rekey(opener, args),
        C::QueryEncryption(args) => keys::query_encryption(opener, args, json, out),
        C::Move(args) => files::move_file(opener, args),
        C::Delete(args) => files::delete(opener, args),
        C::DumpFileTable(args) => list::dump_file_table(opener, args, json, out),
        C::Ls(args) => list::ls(opener, args, json, out),
        C::Verify(args) => maintain::verify(opener, args, json, out),
        C::Grow(args) => maintain::grow(opener, args),
        C::Scrub(args) => maintain::scrub(opener, args),
        C::Upgrade(args) => maintain::upgrade(opener, args),
        C::AcceptPlain(args) => maintain::accept_plain(opener, args),
        C::UefiNvram(command) => nvram::run(opener, command, json, out),
        C::CopyIgvmfile(args) => igvm::copy_igvmfile(opener, args),
        C::Test(command) => test_stores::run(opener, command),
        C::Completions { shell } => completions::print(*shell, out),
    }
}
