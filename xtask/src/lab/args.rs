//! The command line of `cargo xtask lab`.

use super::job::InFile;
use super::job::Lab;
use super::job::OutFile;
use super::machine;
use super::machine::LabEnd;
use super::machine::LabParts;
use super::machine::LabStreams;
use crate::build;
use crate::guest::GuestFile;
use crate::workspace;
use anyhow::Context;
use clap::Args;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code for a run that reached its time limit, as for timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit code when the lab itself failed.
const LAB_FAILED: u8 = 125;

/// Run a command on an emulated machine that has KVM with nested virtualization.
///
/// Boots a software-emulated SVM machine with Debian's kernel and busybox, runs CMD in /work with its
/// standard streams connected to yours, and returns its exit code: 124 if the time limit passed, 125 if
/// the lab failed, 128+N if signal N ended CMD. /guest holds the files of a guest to boot, as made by
/// `cargo xtask guest`.
#[derive(Args)]
pub(crate) struct LabArgs {
    /// End the lab after SECS seconds, boot included.
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    timeout: u64,
    /// Copy FILE into the lab as NAME (default: its own name, in /work).
    #[arg(long = "in", value_name = "FILE[:NAME]")]
    inputs: Vec<String>,
    /// Copy NAME from the lab to FILE when CMD has ended.
    #[arg(long = "out", value_name = "NAME:FILE")]
    outputs: Vec<String>,
    /// Processors of the lab's machine. With more than one, errors of QEMU's emulation can crash nested guests or the
    /// lab.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Memory of the lab's machine, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u32,
    /// Build a workspace package statically, and put its programs into the lab's /bin. The package that holds the
    /// program CMD is built anyway.
    #[arg(long = "bin", value_name = "PKG")]
    packages: Vec<String>,
    /// Build a package's tests, and put them into the lab's /tests. Without CMD, the lab runs them.
    #[arg(long = "test", value_name = "PKG")]
    tests: Vec<String>,
    /// Copy a program of this machine into the lab, with its shared libraries.
    #[arg(long = "with", value_name = "PROGRAM")]
    programs: Vec<String>,
    /// Load another kernel module.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Give the lab a disk /dev/vda with an installation of Debian, as made by `cargo xtask guest`.
    #[arg(long)]
    installation: bool,
    /// Set an environment variable for CMD.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Do not forward standard input.
    #[arg(long)]
    no_stdin: bool,
    /// The command to run.
    #[arg(trailing_var_arg = true, required_unless_present = "tests")]
    command: Vec<String>,
}

pub(crate) fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    let interactive = !args.no_stdin && io::stdin().is_terminal() && io::stdout().is_terminal();
    let streams = LabStreams {
        // Reading from a terminal makes sense only if the output goes there too.
        input: (!args.no_stdin && (interactive || !io::stdin().is_terminal()))
            .then(|| Box::new(io::stdin()) as Box<dyn Read + Send>),
        terminal: interactive.then(terminal_size),
        ..LabStreams::output()
    };
    let lab = prepare(args)?;
    let parts = LabParts::ensure();
    let raw = if interactive {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let ended = parts.and_then(|parts| machine::boot(&parts, &lab, streams));
    drop(raw);
    Ok(ExitCode::from(match ended {
        Ok(LabEnd::Exit(code)) => code,
        Ok(LabEnd::TimedOut) => TIMED_OUT,
        Ok(LabEnd::Stopped) => LAB_FAILED,
        Ok(LabEnd::Signal(signal)) => 128 + u8::try_from(signal).unwrap_or(0),
        Err(err) => {
            eprintln!("error: {err:#}");
            LAB_FAILED
        }
    }))
}

fn prepare(args: LabArgs) -> anyhow::Result<Lab> {
    let mut lab = Lab::new(args.command);
    lab.guest_files = GuestFile::ALL.into();
    lab.disk = args.installation.then_some(GuestFile::InstalledDisk);
    lab.cpus = args.cpus;
    lab.memory_mib = args.memory;
    lab.modules = args.modules;
    lab.time_limit = Duration::from_secs(args.timeout);
    for env in &args.env {
        let (name, value) = env
            .split_once('=')
            .with_context(|| format!("--env {env}: expected NAME=VALUE"))?;
        lab.env.push((name.to_owned(), value.to_owned()));
    }
    lab.inputs = args.inputs.iter().map(|spec| parse_in(spec)).collect();
    for program in &args.programs {
        lab.add_host_program(program)?;
    }
    lab.outputs = args
        .outputs
        .iter()
        .map(|spec| parse_out(spec))
        .collect::<anyhow::Result<_>>()?;

    let mut packages = args.packages;
    packages.extend(package_of_program(lab.argv.first())?);
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        lab.add_programs("/bin", &build::binaries(&packages)?);
    }
    if !args.tests.is_empty() {
        let tests = build::tests(&args.tests)?;
        lab.add_programs("/tests", &tests);
        if lab.argv.is_empty() {
            let script =
                "status=0; for test in /tests/*; do $test || status=$?; done; exit $status";
            lab.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        }
    }
    Ok(lab)
}

impl Lab {
    /// Puts programs into a directory of the lab.
    pub(crate) fn add_programs(&mut self, directory: &str, programs: &[build::Program]) {
        for program in programs {
            self.inputs.push(InFile {
                source: program.path.clone(),
                name: format!("{directory}/{}", program.name),
            });
        }
    }
}

fn parse_in(spec: &str) -> InFile {
    // An existing file whose name has a colon is taken as it is.
    let (source, name) = match spec.rsplit_once(':') {
        Some((source, name)) if !Path::new(spec).exists() => (source, name.to_owned()),
        _ => {
            let name = Path::new(spec).file_name().unwrap_or_default();
            (spec, name.to_string_lossy().into_owned())
        }
    };
    InFile {
        source: PathBuf::from(source),
        name,
    }
}

fn parse_out(spec: &str) -> anyhow::Result<OutFile> {
    let (name, target) = spec
        .split_once(':')
        .with_context(|| format!("--out {spec}: expected NAME:FILE"))?;
    Ok(OutFile {
        name: name.to_owned(),
        target: PathBuf::from(target),
    })
}

/// Finds the workspace package that builds a program of this name.
fn package_of_program(program: Option<&String>) -> anyhow::Result<Option<String>> {
    let Some(program) = program else {
        return Ok(None);
    };
    Ok(workspace::metadata()?
        .packages
        .iter()
        .find(|package| {
            package
                .targets
                .iter()
                .any(|target| target.is_bin() && target.name == *program)
        })
        .map(|package| package.name.to_string()))
}

fn terminal_size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col != 0 && size.ws_row != 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

/// Puts our terminal into raw mode: the terminal in the lab interprets the keys.
struct RawTerminal {
    saved: rustix::termios::Termios,
}

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let saved = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self { saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(
            io::stdin(),
            rustix::termios::OptionalActions::Now,
            &self.saved,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_names_by_default() {
        let file = parse_in("/a/b/c");
        assert_eq!((file.source.to_str(), &*file.name), (Some("/a/b/c"), "c"));
        let file = parse_in("/a/b/c:/bin/d");
        assert_eq!(
            (file.source.to_str(), &*file.name),
            (Some("/a/b/c"), "/bin/d")
        );
        assert!(parse_out("name-only").is_err());
        let out = parse_out("x:/y/z").unwrap();
        assert_eq!((&*out.name, out.target.to_str()), ("x", Some("/y/z")));
    }
}
