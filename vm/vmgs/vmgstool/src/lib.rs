//! Inspects and edits VMGS guest-state files: everything the command `vmgstool` does.
#![forbid(unsafe_code)]

mod cli;
mod completions;
mod create;
mod decode;
mod exit;
mod files;
mod firmware;
mod headers;
mod igvm;
mod keys;
mod legacy;
mod list;
mod maintain;
mod nvram;
mod nvram_json;
mod nvram_text;
mod open;
mod output;
mod test_stores;

use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs the tool with the arguments of the process.
pub fn main() -> ExitCode {
    let (args, legacy) = legacy::translate(std::env::args_os().collect());
    let cli = cli::Cli::parse_from(args);
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
                .with_ansi(false),
        )
        .with(filter)
        .init();
    if legacy {
        tracing::warn!("options with a single dash are deprecated");
    }
    ExitCode::from(finish(run_cli(&cli, &mut std::io::stdout())))
}

/// Runs the tool with these arguments, the first being its name, and returns its exit code. What it has
/// to say on standard output goes to `out`.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write) -> u8 {
    let (args, _) = legacy::translate(args.into_iter().collect());
    match cli::Cli::try_parse_from(args) {
        Ok(cli) => finish(run_cli(&cli, out)),
        Err(error) => u8::try_from(error.exit_code()).unwrap_or(exit::FAILURE),
    }
}

fn finish(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => exit::report(&error),
    }
}

fn run_cli(cli: &cli::Cli, out: &mut dyn Write) -> anyhow::Result<()> {
    use cli::Command as C;
    let place = open::Place {
        container: cli.container(),
    };
    let json = cli.json;
    match &cli.command {
        C::Create(args) => create::create(place, args),
        C::Write(args) => files::write(place, args),
        C::Inject(args) => files::inject(place, args),
        C::Dump(args) => files::dump(place, args, json, out),
        C::Extract(args) => files::extract(place, args),
        C::DumpHeaders(args) => headers::dump_headers(place, args, json, out),
        C::QuerySize(args) => list::query_size(place, args, json, out),
        C::UpdateKey(args) => keys::update_key(place, args),
        C::Encrypt(args) => keys::encrypt(place, args),
        C::Rekey(args) => keys::rekey(place, args),
        C::QueryEncryption(args) => keys::query_encryption(place, args, json, out),
        C::Move(args) => files::move_file(place, args),
        C::Delete(args) => files::delete(place, args),
        C::DumpFileTable(args) => list::dump_file_table(place, args, json, out),
        C::Ls(args) => list::ls(place, args, json, out),
        C::Verify(args) => maintain::verify(place, args, json, out),
        C::Grow(args) => maintain::grow(place, args),
        C::Scrub(args) => maintain::scrub(place, args),
        C::Upgrade(args) => maintain::upgrade(place, args),
        C::AcceptPlain(args) => maintain::accept_plain(place, args),
        C::UefiNvram(command) => nvram::run(place, command, json, out),
        C::CopyIgvmfile(args) => igvm::copy_igvmfile(place, args),
        C::Test(command) => test_stores::run(place, command),
        C::Completions { shell } => completions::print(*shell, out),
    }
}
