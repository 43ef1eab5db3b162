//! The command line.

use crate::build::generate;
use crate::dump::dump_json;
use crate::dump::dump_text;
use crate::dump::verify;
use crate::manifest::Manifest;
use crate::manifest::Resources;
use anyhow::Context;
use clap::Parser;
use clap::Subcommand;
use igvm_format::IgvmFile;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes IGVM files, and prints and verifies them.
#[derive(Debug, Parser)]
#[command(name = "igvmfilegen", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a file, and FILE.map, which says what is where in guest memory
    Manifest {
        /// What the file is made of
        #[arg(short, long, value_name = "FILE")]
        manifest: PathBuf,

        /// Where the parts are
        #[arg(short, long, value_name = "FILE")]
        resources: PathBuf,

        /// The file to make
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print a file in words
    Dump {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        filepath: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that a file obeys the format's rules, on each of its platforms
    Verify {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        filepath: PathBuf,
    },
}

/// Runs `igvmfilegen`: exit code 1 for an error, 2 for a wrong command line.
pub fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Manifest {
            manifest,
            resources,
            output,
        } => make(&manifest, &resources, &output),
        Command::Dump { filepath, json } => dump(&filepath, json),
        Command::Verify { filepath } => check(&filepath),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(manifest: &Path, resources: &Path, output: &Path) -> anyhow::Result<()> {
    let manifest = Manifest::read(manifest)?;
    let resources = Resources::read(resources)?;
    let generated = generate(&manifest, &resources)?;
    let mut map = output.as_os_str().to_owned();
    map.push(".map");
    // The map first: an IGVM file that exists has its map.
    replace(Path::new(&map), generated.map.as_bytes())?;
    replace(output, &generated.file)
}

/// Replaces a file as a whole.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn dump(path: &Path, json: bool) -> anyhow::Result<()> {
    let bytes = read(path)?;
    let file = IgvmFile::parse(&bytes).with_context(|| path.display().to_string())?;
    let text = match json {
        true => format!("{:#}\n", dump_json(&file, &bytes)),
        false => dump_text(&file, &bytes),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}

fn check(path: &Path) -> anyhow::Result<()> {
    let bytes = read(path)?;
    let file = IgvmFile::parse(&bytes).with_context(|| path.display().to_string())?;
    verify(&file).with_context(|| path.display().to_string())?;
    let platforms: Vec<_> = file
        .platforms
        .iter()
        .map(|at| at.record.platform_type.name())
        .collect();
    writeln!(
        std::io::stdout(),
        "{}: valid, for {}",
        path.display(),
        platforms.join(", ")
    )
    .context("cannot write to standard output")
}
