//! Where guests run: on this machine if it has a KVM worth the name, else in the lab.

use crate::build;
use crate::guest::GuestFile;
use crate::host_kvm::HostKvm;
use crate::lab;
use crate::lab::Ended;
use crate::lab::Lab;
use crate::lab::OutFile;
use crate::lab::Parts;
use crate::lab::Streams;
use crate::setup;
use anyhow::Context;
use clap::ValueEnum;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Where {
    /// Directly if KVM here is backed by hardware, else in the lab.
    #[default]
    Auto,
    /// On this machine's KVM, whatever it is.
    Host,
    /// In the lab.
    Lab,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Host,
    Lab,
}

impl Where {
    /// Decides, and says why.
    pub(crate) fn decide(self) -> (Place, String) {
        let kvm = HostKvm::detect();
        match self {
            Self::Auto if kvm.is_hardware() => {
                (Place::Host, format!("directly: this machine has {kvm}"))
            }
            Self::Auto => (Place::Lab, format!("in the lab: this machine has {kvm}")),
            Self::Host => (
                Place::Host,
                format!("directly, as asked: this machine has {kvm}"),
            ),
            Self::Lab => (Place::Lab, "in the lab, as asked".to_owned()),
        }
    }
}

impl Place {
    /// What the programs of `vmm_tests` are told of their surroundings.
    pub(crate) fn test_environment(self) -> Vec<(String, Arg)> {
        let emulated = match self {
            Self::Host => "0",
            Self::Lab => "1",
        };
        [
            ("OPENVMM", Arg::Program("openvmm")),
            ("KERNEL", Arg::Guest(GuestFile::Kernel)),
            ("INITRD", Arg::Guest(GuestFile::Initrd)),
            ("OVMF_CODE_4M", Arg::Guest(GuestFile::Ovmf4mCode)),
            ("OVMF_VARS_4M", Arg::Guest(GuestFile::Ovmf4mVars)),
            ("OVMF_CODE_2M", Arg::Guest(GuestFile::Ovmf2mCode)),
            ("OVMF_VARS_2M", Arg::Guest(GuestFile::Ovmf2mVars)),
            ("BOOT_DISK", Arg::Guest(GuestFile::BootDisk)),
            ("EMULATED", emulated.into()),
        ]
        .map(|(name, value)| (format!("VMM_TESTS_{name}"), value))
        .into()
    }
}

/// A program of ours, with arguments that may name the guest's files and its own result files.
pub(crate) struct GuestRun {
    /// Packages whose programs must be there.
    pub(crate) packages: Vec<String>,
    /// A test that must be there as well.
    pub(crate) gated_test: Option<build::GatedTest>,
    /// The name of the program to run.
    pub(crate) program: String,
    pub(crate) args: Vec<Arg>,
    /// Programs of this machine that it runs.
    pub(crate) host_programs: Vec<String>,
    /// Files of this machine that those need, beside their libraries.
    pub(crate) host_files: Vec<PathBuf>,
    /// Environment variables.
    pub(crate) env: Vec<(String, Arg)>,
    /// Names of files that the program writes, and where they should end up.
    pub(crate) outputs: Vec<OutFile>,
    pub(crate) time_limit: Duration,
}

/// An argument.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    /// As it is.
    Text(String),
    /// The path of a program built from the workspace.
    Program(&'static str),
    /// The path of one of the guest's files.
    Guest(GuestFile),
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl GuestRun {
    /// Runs it at `place`; `output` gets what it prints. Returns its exit status.
    pub(crate) fn run(&self, place: Place, output: Box<dyn Write + Send>) -> anyhow::Result<u8> {
        match place {
            Place::Host => self.run_here(output),
            Place::Lab => self.run_in_lab(output),
        }
    }

    fn build(&self) -> anyhow::Result<Vec<build::Program>> {
        let mut programs = Vec::new();
        if !self.packages.is_empty() {
            programs.extend(build::binaries(&self.packages)?);
        }
        if let Some(test) = self.gated_test {
            programs.extend(build::gated_test(test)?);
        }
        Ok(programs)
    }

    /// The guest's files that arguments and environment name, each once.
    fn guest_files(&self) -> Vec<GuestFile> {
        let values = self
            .args
            .iter()
            .chain(self.env.iter().map(|(_, value)| value));
        let mut files = Vec::new();
        for value in values {
            if let Arg::Guest(file) = value
                && !files.contains(file)
            {
                files.push(*file);
            }
        }
        files
    }

    fn run_in_lab(&self, output: Box<dyn Write + Send>) -> anyhow::Result<u8> {
        self.boot(&Parts::ensure()?, &self.lab()?, output)
    }

    /// Runs it in one lab for each of `outputs`, at the same time; in the environment of each, `variable` has
    /// what is its share: `I/N` for lab I, counted from 0, of N. Returns the exit statuses.
    pub(crate) fn run_in_labs(
        &self,
        variable: &str,
        outputs: Vec<Box<dyn Write + Send>>,
    ) -> anyhow::Result<Vec<u8>> {
        let parts = &Parts::ensure()?;
        let lab = self.lab()?;
        let count = outputs.len();
        thread::scope(|scope| {
            let running: Vec<_> = (0..)
                .zip(outputs)
                .map(|(index, output): (usize, _)| {
                    let mut lab = lab.clone();
                    lab.env
                        .push((variable.to_owned(), format!("{index}/{count}")));
                    scope.spawn(move || self.boot(parts, &lab, output))
                })
                .collect();
            running
                .into_iter()
                .map(|lab| match lab.join() {
                    Ok(status) => status,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }

    /// The lab that it runs in, with its programs built.
    fn lab(&self) -> anyhow::Result<Lab> {
        let place = |arg: &Arg| match arg {
            Arg::Text(text) => text.clone(),
            Arg::Program(name) => format!("/bin/{name}"),
            Arg::Guest(file) => format!("{}/{}", lab::GUEST_DIR, file.name()),
        };
        let mut argv = vec![self.program.clone()];
        argv.extend(self.args.iter().map(place));
        let mut lab = Lab::new(argv);
        lab.env = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), place(value)))
            .collect();
        lab.guest_files = self.guest_files();
        lab.outputs.clone_from(&self.outputs);
        lab.time_limit = self.time_limit;
        lab.add_programs("/bin", &self.build()?);
        for program in &self.host_programs {
            lab.add_host_program(program)?;
        }
        for file in &self.host_files {
            lab.add_host_file(file);
        }
        Ok(lab)
    }

    fn boot(&self, parts: &Parts, lab: &Lab, output: Box<dyn Write + Send>) -> anyhow::Result<u8> {
        let streams = Streams {
            stdout: output,
            ..Streams::output()
        };
        match lab::boot(parts, lab, streams)? {
            Ended::Exit(status) => Ok(status),
            Ended::TimedOut => anyhow::bail!(
                "{} did not end within {} s",
                self.program,
                self.time_limit.as_secs()
            ),
            Ended::Signal(signal) => anyhow::bail!("ended by signal {signal}"),
        }
    }

    fn run_here(&self, mut output: Box<dyn Write + Send>) -> anyhow::Result<u8> {
        let fetched = setup::ensure()?;
        let programs = self.build()?;
        let dir = tempfile::Builder::new().prefix("openvmm-run-").tempdir()?;
        let guest = dir.path().join("guest");
        fs::create_dir(&guest)?;
        for file in self.guest_files() {
            file.make(&fetched, &guest)?;
        }
        let program = |wanted: &str| -> anyhow::Result<PathBuf> {
            programs
                .iter()
                .find(|program| program.name == wanted)
                .map(|program| program.path.clone())
                .with_context(|| format!("cargo built no {wanted}"))
        };
        let place = |arg: &Arg| -> anyhow::Result<PathBuf> {
            Ok(match arg {
                Arg::Text(text) => text.into(),
                Arg::Program(name) => program(name)?,
                Arg::Guest(file) => guest.join(file.name()),
            })
        };
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=10", &self.time_limit.as_secs().to_string()])
            .arg(program(&self.program)?)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for arg in &self.args {
            command.arg(place(arg)?);
        }
        for (name, value) in &self.env {
            command.env(name, place(value)?);
        }
        let mut child = command.spawn().context("cannot run timeout")?;
        if let Some(mut stdout) = child.stdout.take() {
            let mut buffer = [0; 4096];
            loop {
                match stdout.read(&mut buffer)? {
                    0 => break,
                    n => output.write_all(&buffer[..n])?,
                }
                output.flush()?;
            }
        }
        let status = child.wait()?;
        for out in &self.outputs {
            let from: &Path = &dir.path().join(&out.name);
            fs::copy(from, &out.target)
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let code = status.code().context("timeout ended by a signal")?;
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}
