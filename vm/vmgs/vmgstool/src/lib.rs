//! The command `vmgstool`, which inspects and edits VMGS guest-state files.
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
mod input;
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

/// Runs the command with the arguments of the process.
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

/// Runs the command with these arguments, the first of which is its name, and returns the exit code. Standard
/// output goes to `out`.
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
    let opener = open::Opener {
        container: cli.container(),
    };
    let json = cli.json;
    match &cli.command {
        C::Create(args) => create::create(opener, args),
        C::Write(args) => files::write(opener, args),
        C::Inject(args) => files::inject(opener, args),
        C::Dump(args) => files::dump(opener, args, json, out),
        C::Extract(args) => files::extract(opener, args),
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
