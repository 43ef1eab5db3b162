//! Runs programs that boot guests: on this machine if its KVM is backed by hardware, else in the lab.

use crate::build;
use crate::guest::GuestFile;
use crate::host_kvm::HostKvm;
use crate::lab;
use crate::lab::Lab;
use crate::lab::LabEnd;
use crate::lab::LabParts;
use crate::lab::LabStreams;
use crate::lab::OutFile;
use crate::setup;
use crate::shared_writer::SharedWriter;
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

/// The option `--where`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum PlaceOption {
    /// Directly if KVM here is backed by hardware, else in the lab.
    #[default]
    Auto,
    /// On this machine's KVM, whatever it is.
    Host,
    /// In the lab.
    Lab,
}

/// Where guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestPlace {
    Host,
    Lab,
}

impl PlaceOption {
    /// Decides where to run guests. Returns the reason as text too.
    pub(crate) fn decide(self) -> (GuestPlace, String) {
        let kvm = HostKvm::detect();
        match self {
            Self::Auto if kvm.is_hardware() => (
                GuestPlace::Host,
                format!("directly: this machine has {kvm}"),
            ),
            Self::Auto => (
                GuestPlace::Lab,
                format!("in the lab: this machine has {kvm}"),
            ),
            Self::Host => (
                GuestPlace::Host,
                format!("directly, as asked: this machine has {kvm}"),
            ),
            Self::Lab => (GuestPlace::Lab, "in the lab, as asked".to_owned()),
        }
    }
}

impl GuestPlace {
    /// The environment variables that the programs of `vmm_tests` read.
    fn test_environment(self) -> Vec<(String, Arg)> {
        let emulated = match self {
            Self::Host => "0",
            Self::Lab => "1",
        };
        [
            ("OPENVMM", Arg::Program("openvmm")),
            ("IGVMFILEGEN", Arg::Program("igvmfilegen")),
            ("KERNEL", Arg::Guest(GuestFile::Kernel)),
            ("INITRD", Arg::Guest(GuestFile::Initrd)),
            ("KERNEL_13", Arg::Guest(GuestFile::Kernel13)),
            ("INITRD_13", Arg::Guest(GuestFile::Initrd13)),
            ("OVMF_CODE_4M", Arg::Guest(GuestFile::Ovmf4mCode)),
            ("OVMF_VARS_4M", Arg::Guest(GuestFile::Ovmf4mVars)),
            ("OVMF_CODE_2M", Arg::Guest(GuestFile::Ovmf2mCode)),
            ("OVMF_VARS_2M", Arg::Guest(GuestFile::Ovmf2mVars)),
            ("OVMF_CODE_13", Arg::Guest(GuestFile::Ovmf13Code)),
            ("OVMF_VARS_13", Arg::Guest(GuestFile::Ovmf13Vars)),
            ("TEST_FIRMWARE", Arg::Guest(GuestFile::TestFirmware)),
            ("BOOT_DISK", Arg::Guest(GuestFile::BootDisk)),
            ("EMULATED", emulated.into()),
        ]
        .map(|(name, value)| (format!("VMM_TESTS_{name}"), value))
        .into()
    }
}

/// A run of a program of the workspace that boots guests.
#[derive(Default)]
pub(crate) struct GuestRun {
    /// The packages to build, whose programs the run needs.
    pub(crate) packages: Vec<String>,
    /// A test program to build, likewise.
    pub(crate) gated_test: Option<build::GatedTest>,
    /// The name of the program to run.
    pub(crate) program: String,
    pub(crate) args: Vec<Arg>,
    /// Programs of this machine that it runs.
    pub(crate) host_programs: Vec<String>,
    /// Files of this machine that those programs need, besides their libraries.
    pub(crate) host_files: Vec<PathBuf>,
    /// Environment variables.
    pub(crate) env: Vec<(String, Arg)>,
    /// The files that the program writes, and where to copy them.
    pub(crate) outputs: Vec<OutFile>,
    pub(crate) time_limit: Duration,
}

/// The program's streams in one of several labs.
pub(crate) struct LabRunStreams {
    /// Makes the program's input, for each start of the lab.
    pub(crate) input: Box<dyn Fn() -> Box<dyn Read + Send> + Send>,
    pub(crate) output: Box<dyn Write + Send>,
}

/// How often to start a lab whose emulated processor stops.
const LAB_ATTEMPTS: u32 = 3;

/// An argument.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    /// This text.
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
    /// A run of a program of `vmm_tests` at `place`.
    pub(crate) fn of_vmm_tests(
        program: &str,
        args: Vec<Arg>,
        place: GuestPlace,
        time_limit: Duration,
    ) -> Self {
        Self {
            packages: ["openvmm", "igvmfilegen", "vmm_tests"]
                .map(str::to_owned)
                .into(),
            program: program.to_owned(),
            args,
            env: place.test_environment(),
            time_limit,
            ..Self::default()
        }
    }

    /// Runs the program at `place`. Its output goes to `output`. Returns its exit status.
    pub(crate) fn run(
        &self,
        place: GuestPlace,
        output: Box<dyn Write + Send>,
    ) -> anyhow::Result<u8> {
        match place {
            GuestPlace::Host => self.run_here(output),
            GuestPlace::Lab => self.run_in_lab(output),
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

    /// The program to run, as it was built.
    pub(crate) fn built_program(&self) -> anyhow::Result<PathBuf> {
        find(&self.build()?, &self.program)
    }

    /// The guest's files that the arguments and the environment name, each once.
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
        self.boot(&LabParts::ensure()?, &self.lab()?, output, &|| None)
    }

    /// Runs the program in one lab for each of `streams`, at the same time. Returns the exit statuses.
    pub(crate) fn run_in_labs(&self, streams: Vec<LabRunStreams>) -> anyhow::Result<Vec<u8>> {
        let parts = &LabParts::ensure()?;
        let lab = &self.lab()?;
        thread::scope(|scope| {
            let running: Vec<_> = streams
                .into_iter()
                .map(|LabRunStreams { input, output }| {
                    scope.spawn(move || self.boot(parts, lab, output, &|| Some(input())))
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

    /// Builds the programs and describes the lab to run them in.
    fn lab(&self) -> anyhow::Result<Lab> {
        let place = |arg: &Arg| match arg {
            Arg::Text(text) => text.clone(),
            Arg::Program(name) => format!("/bin/{name}"),
            Arg::Guest(GuestFile::InstalledDisk) => lab::DISK.to_owned(),
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
        lab.disk = lab
            .guest_files
            .extract_if(.., |file| *file == GuestFile::InstalledDisk)
            .next();
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

    /// Runs the program in `lab`, again from the beginning if QEMU's emulated processor stops. `input` makes the input of
    /// each start.
    fn boot(
        &self,
        parts: &LabParts,
        lab: &Lab,
        output: Box<dyn Write + Send>,
        input: &dyn Fn() -> Option<Box<dyn Read + Send>>,
    ) -> anyhow::Result<u8> {
        let output = SharedWriter::new(output);
        for _ in 0..LAB_ATTEMPTS {
            let streams = LabStreams {
                input: input(),
                stdout: Box::new(output.clone()),
                ..LabStreams::output()
            };
            match lab::boot(parts, lab, streams)? {
                LabEnd::Exit(status) => return Ok(status),
                LabEnd::TimedOut => anyhow::bail!(
                    "{} did not end within {} s",
                    self.program,
                    self.time_limit.as_secs()
                ),
                LabEnd::Stopped => {}
                LabEnd::Signal(signal) => anyhow::bail!("ended by signal {signal}"),
            }
        }
        anyhow::bail!("the lab stopped {LAB_ATTEMPTS} times")
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
        let program = |wanted: &str| find(&programs, wanted);
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

/// The program of this name among those that were built.
fn find(programs: &[build::Program], name: &str) -> anyhow::Result<PathBuf> {
    let mut programs = programs.iter();
    let program = programs.find(|program| program.name == name);
    Ok(program
        .with_context(|| format!("cargo built no {name}"))?
        .path
        .clone())
}
