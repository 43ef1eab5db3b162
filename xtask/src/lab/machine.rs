//! Runs the lab's machine: one QEMU process.

use super::initrd;
use super::job::Lab;
use super::streams;
use super::streams::LabEvent;
use super::watchdog;
use super::watchdog::Watchdog;
use crate::build;
use crate::process;
use crate::setup;
use crate::setup::Fetched;
use crate::setup::LabQemu;
use anyhow::Context;
use lab_init::LabReport;
use lab_init::port;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How a run of the lab ended.
#[derive(Debug)]
pub(crate) enum LabEnd {
    /// The command ended with this exit status (128+N for signal N).
    Exit(u8),
    /// The time limit passed first.
    TimedOut,
    /// QEMU's emulated processor stopped.
    Stopped,
    /// This process got a signal.
    Signal(i32),
}

/// Where the command's streams go.
pub(crate) struct LabStreams {
    /// The command's input, if it has one.
    pub(crate) input: Option<Box<dyn Read + Send>>,
    /// The size (columns, rows) of a terminal to run the command on; `None` runs it on pipes.
    pub(crate) terminal: Option<(u16, u16)>,
    pub(crate) stdout: Box<dyn Write + Send>,
    pub(crate) stderr: Box<dyn Write + Send>,
}

impl LabStreams {
    /// The command's output goes to ours, and it has no input.
    pub(crate) fn output() -> Self {
        Self {
            input: None,
            terminal: None,
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
        }
    }
}

const PORTS: [&str; 5] = [
    port::STDIN,
    port::STDOUT,
    port::STDERR,
    port::REPORT,
    port::PULSE,
];

/// What every lab needs.
pub(crate) struct LabParts {
    fetched: Fetched,
    qemu: LabQemu,
    init: PathBuf,
}

impl LabParts {
    /// Fetches and builds what is missing.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let init = build::binaries(&["lab_init".to_owned()])?
            .pop()
            .context("cargo built no lab_init")?;
        Ok(Self {
            fetched: setup::ensure()?,
            qemu: LabQemu::ensure()?,
            init: init.path,
        })
    }
}

/// Boots the lab, runs its command, and ends it.
pub(crate) fn boot(parts: &LabParts, lab: &Lab, streams: LabStreams) -> anyhow::Result<LabEnd> {
    let dir = tempfile::Builder::new().prefix("openvmm-lab-").tempdir()?;
    let initrd = dir.path().join("initrd");
    initrd::write(
        &initrd,
        lab,
        &parts.fetched,
        &parts.init,
        streams.input.is_some(),
        streams.terminal,
    )?;

    let disk = match lab.disk {
        Some(file) => {
            file.make(&parts.fetched, dir.path())?;
            Some(dir.path().join(file.name()))
        }
        None => None,
    };

    let (events, received) = mpsc::channel();
    forward_signals(events.clone())?;
    let listeners = PORTS
        .iter()
        .map(|port| UnixListener::bind(dir.path().join(port)))
        .collect::<io::Result<Vec<_>>>()
        .context("cannot listen for the lab's ports")?;
    let deadline = Instant::now() + lab.time_limit;
    let console = dir.path().join("console");
    let mut machine = QemuProcess {
        child: start(
            lab,
            &parts.qemu,
            &parts.fetched.kernel.vmlinuz(),
            &initrd,
            disk.as_deref(),
            dir.path(),
            &console,
        )?,
    };
    let connected = listeners
        .iter()
        .map(|listener| accept(listener, &mut machine.child))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Ok([stdin, stdout, stderr, reports, pulse]) = <[UnixStream; 5]>::try_from(connected) else {
        anyhow::bail!("the lab's ports did not all connect");
    };
    if let Some(input) = streams.input {
        // The original stays open: QEMU drops data in flight when a port closes.
        streams::forward_input(input, stdin.try_clone()?);
    }
    streams::pulse(pulse);
    streams::forward(stdout, streams.stdout, events.clone(), LabEvent::Stdout);
    streams::forward(stderr, streams.stderr, events.clone(), LabEvent::Stderr);
    streams::receive_report(reports, lab.outputs.clone(), events);

    let watchdog = Watchdog::new(machine.child.id());
    match wait(&received, deadline, watchdog) {
        Ok(WaitResult::Report(report)) => finish(report),
        Ok(WaitResult::TimedOut) => {
            eprintln!(
                "lab: ended after its time limit of {} s",
                lab.time_limit.as_secs()
            );
            Ok(LabEnd::TimedOut)
        }
        Ok(WaitResult::Stopped) => {
            eprintln!("lab: QEMU's emulated processor has stopped");
            Ok(LabEnd::Stopped)
        }
        Ok(WaitResult::Signal(signal)) => Ok(LabEnd::Signal(signal)),
        Err(err) => {
            let log = fs::read(&console).unwrap_or_default();
            eprintln!("lab: the console output of the machine:");
            io::stderr().write_all(&log)?;
            Err(err)
        }
    }
}

enum WaitResult {
    Report(LabReport),
    TimedOut,
    Stopped,
    Signal(i32),
}

/// Waits for the report and for all of the output that it announces.
fn wait(
    events: &mpsc::Receiver<LabEvent>,
    deadline: Instant,
    mut watchdog: Watchdog,
) -> anyhow::Result<WaitResult> {
    let mut arrived = (0, 0);
    let mut report: Option<LabReport> = None;
    loop {
        if let Some(report) = report
            .take_if(|report| arrived.0 >= report.stdout_len && arrived.1 >= report.stderr_len)
        {
            return Ok(WaitResult::Report(report));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left.min(watchdog::INTERVAL)) {
            Ok(LabEvent::Stdout(n)) => arrived.0 += n,
            Ok(LabEvent::Stderr(n)) => arrived.1 += n,
            Ok(LabEvent::Report(received)) => report = Some(received),
            Ok(LabEvent::NoReport(err)) => return Err(err),
            Ok(LabEvent::Signal(signal)) => return Ok(WaitResult::Signal(signal)),
            Err(RecvTimeoutError::Timeout) if left <= watchdog::INTERVAL => {
                return Ok(WaitResult::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) if watchdog.has_stopped() => {
                return Ok(WaitResult::Stopped);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("the lab's machine closed its ports");
            }
        }
    }
}

fn finish(report: LabReport) -> anyhow::Result<LabEnd> {
    for file in &report.files {
        if let Err(err) = &file.size {
            eprintln!("lab: cannot fetch {}: {err}", file.name);
        }
    }
    let status = report.status.map_err(|err| anyhow::anyhow!("lab: {err}"))?;
    Ok(LabEnd::Exit(status))
}

/// A QEMU process, killed when dropped.
struct QemuProcess {
    child: Child,
}

impl Drop for QemuProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(
    lab: &Lab,
    qemu: &LabQemu,
    vmlinuz: &Path,
    initrd: &Path,
    disk: Option<&Path>,
    sockets: &Path,
    console: &Path,
) -> anyhow::Result<Child> {
    File::create(console)?;
    // The kernel kills QEMU if we are killed.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(qemu.words())
        // QEMU's emulation of SVM has errors with one thread per processor.
        .args(["-machine", "q35", "-accel", "tcg,thread=single"])
        // Byte string instructions are slow in emulation; without these flags, kernels and libraries copy in words.
        .args(["-cpu", "max,erms=off,fsrm=off"])
        .args(["-smp", &lab.cpus.to_string()])
        .args(["-m", &lab.memory_mib.to_string()])
        .args(["-no-user-config", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-monitor", "none"])
        .args(["-serial", &format!("file:{}", console.display())])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 panic=-1 mitigations=off"])
        .args(["-device", "virtio-serial-pci"]);
    if let Some(disk) = disk {
        let file = format!("if=none,id=disk,format=raw,file={}", disk.display());
        command.args(["-drive", &file, "-device", "virtio-blk-pci,drive=disk"]);
    }
    for (index, name) in PORTS.iter().enumerate() {
        let path = sockets.join(name);
        command
            .args([
                "-chardev",
                &format!("socket,id=port{index},path={}", path.display()),
            ])
            .args([
                "-device",
                &format!("virtserialport,chardev=port{index},name={name}"),
            ]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", process::shown(&command)))
}

/// Waits until QEMU connects to a port. Fails if QEMU ends first.
fn accept(listener: &UnixListener, machine: &mut Child) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(err) => return Err(err).context("cannot accept a port of the lab"),
        }
        if let Some(status) = machine.try_wait()? {
            anyhow::bail!("the lab's machine ended with {status} while starting");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Turns the signals that end a program into events, so that the machine and its files go first.
fn forward_signals(events: mpsc::Sender<LabEvent>) -> anyhow::Result<()> {
    use signal_hook::consts::SIGHUP;
    use signal_hook::consts::SIGINT;
    use signal_hook::consts::SIGTERM;
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(LabEvent::Signal(signal)).is_err() {
                // No lab is running: what the signal does by default.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    });
    Ok(())
}
