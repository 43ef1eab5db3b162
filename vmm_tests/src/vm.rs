//! One openvmm process and its guest.

use crate::Environment;
use crate::JsonEvent;
use crate::OpenvmmExit;
use crate::terminal;
use crate::watch::VmWatch;
use anyhow::Context;
use rustix::process::Pid;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;

/// The key that switches from the guest's console to openvmm's prompt.
const CONSOLE_KEY: u8 = 0x11;

/// openvmm's prompt.
const PROMPT: &str = "openvmm>";

/// What the line editor prints when it ends: bracketed paste off.
const EDITOR_ENDS: &[u8] = b"\x1b[?2004l";

/// openvmm's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Input and output are a terminal; standard error is a pipe.
    Terminal,
    /// `/dev/null` and pipes, as under a service manager.
    Null,
    /// The output is a pipe that is closed at the other end.
    ClosedOutput,
    /// Standard error is such a pipe too.
    ClosedOutputAndErrors,
}

/// Builds an openvmm command line.
#[derive(Debug, Clone)]
pub struct VmBuilder {
    program: PathBuf,
    args: Vec<OsString>,
    /// `-m`; none for a VM whose memory a snapshot has.
    memory: Option<String>,
    stdio: Stdio,
    limit: Duration,
    /// A directory with files that the arguments name.
    kept: Vec<Arc<TempDir>>,
}

impl VmBuilder {
    /// openvmm without arguments. All waits end `limit` after its start at the latest.
    pub fn new(environment: &Environment, limit: Duration) -> Self {
        Self {
            program: environment.openvmm.clone(),
            args: Vec::new(),
            memory: Some("512M".to_owned()),
            stdio: Stdio::Terminal,
            limit,
            kept: Vec::new(),
        }
    }

    /// openvmm with the Linux guest, whose init executes the comma-separated `commands` and then reads commands from the
    /// console.
    pub fn linux(environment: &Environment, limit: Duration, commands: &str) -> Self {
        Self::new(environment, limit).kernel(environment, commands)
    }

    /// Adds the Linux guest, which executes these commands.
    #[must_use]
    pub fn kernel(self, environment: &Environment, commands: &str) -> Self {
        self.arg("--kernel")
            .arg(&environment.kernel)
            .arg("--initrd")
            .arg(&environment.initrd)
            .arg("--cmdline")
            .arg(format!("console=ttyS0 quiet vmtest={commands}"))
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Keeps a directory until openvmm has ended.
    pub(crate) fn keep(mut self, dir: Arc<TempDir>) -> Self {
        self.kept.push(dir);
        self
    }

    /// Sets `-m`.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.memory = Some(memory.into());
        self
    }

    /// Goes on with the VM in a snapshot, which says what it is.
    #[must_use]
    pub fn restored(mut self, snapshot: &Path) -> Self {
        self.memory = None;
        self.arg("--restore-snapshot").arg(snapshot)
    }

    /// Sets what the standard streams are.
    #[must_use]
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// Starts openvmm and waits until the Linux guest reads commands from its console.
    pub fn boot(&self) -> anyhow::Result<Vm> {
        let mut vm = self.start()?;
        vm.wait_for_guest("ready")?;
        Ok(vm)
    }

    /// Starts openvmm. Can be called again: each call starts another process with the same arguments.
    pub fn start(&self) -> anyhow::Result<Vm> {
        let dir = tempfile::Builder::new().prefix("vmm-tests-").tempdir()?;
        let events = dir.path().join("events");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &events,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .context("cannot make a pipe for the events")?;

        let mut command = match self.stdio {
            Stdio::Terminal => terminal::command(&self.program),
            Stdio::Null | Stdio::ClosedOutput | Stdio::ClosedOutputAndErrors => {
                Command::new(&self.program)
            }
        };
        command
            .args(&self.args)
            // On a dumb terminal, the prompt does not take single keys.
            .env("TERM", "xterm")
            .args(self.memory.iter().flat_map(|memory| ["-m", memory]))
            .arg("--json-events")
            .arg(&events)
            .stderr(std::process::Stdio::piped());
        let mut input = None;
        let mut output: Option<Box<dyn Read + Send>> = None;
        match self.stdio {
            Stdio::Terminal => {
                let (controller, program) = terminal::open()?;
                command.stdin(program.try_clone()?).stdout(program);
                input = Some(controller.try_clone()?);
                output = Some(Box::new(controller));
            }
            Stdio::Null => {
                let (reader, writer) = std::io::pipe()?;
                command.stdin(std::process::Stdio::null()).stdout(writer);
                output = Some(Box::new(reader));
            }
            Stdio::ClosedOutput => {
                let (_, writer) = std::io::pipe()?;
                command.stdin(std::process::Stdio::null()).stdout(writer);
            }
            Stdio::ClosedOutputAndErrors => {
                let (_, writer) = std::io::pipe()?;
                command.stdin(std::process::Stdio::null());
                command.stdout(writer.try_clone()?).stderr(writer);
            }
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        // `command` holds the program's ends of the terminal and pipes.
        drop(command);

        let watch = Arc::new(VmWatch::default());
        if let Some(output) = output {
            watch_stream(&watch, output, |seen, bytes| seen.output.extend(bytes));
        }
        if let Some(errors) = child.stderr.take() {
            watch_stream(&watch, errors, |seen, bytes| seen.errors.extend(bytes));
        }
        watch_events(&watch, events.clone());
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("openvmm has no process id")?;
        thread::spawn({
            let watch = watch.clone();
            move || {
                let status = child.wait();
                watch.update(|seen| {
                    seen.exit = Some(status.map_or(OpenvmmExit::Unknown(-1), OpenvmmExit::from));
                });
                // Ends the reader of the events if openvmm never opened them.
                drop(open_fifo_writer(&events));
            }
        });
        Ok(Vm {
            watch,
            input,
            pid,
            deadline: Instant::now() + self.limit,
            _dir: dir,
            _kept: self.kept.clone(),
            scanned: 0,
            commanded: 0,
        })
    }
}

/// A running openvmm. Killed when dropped.
#[derive(Debug)]
pub struct Vm {
    watch: Arc<VmWatch>,
    /// The terminal's controlling side.
    input: Option<File>,
    pid: Pid,
    deadline: Instant,
    _dir: TempDir,
    _kept: Vec<Arc<TempDir>>,
    /// How much of the output earlier waits have consumed.
    scanned: usize,
    /// Where the output of the last command begins.
    commanded: usize,
}

impl Vm {
    /// Waits for `text` in the output, after what earlier waits have consumed. Returns the rest of its line.
    pub fn wait_for_output(&mut self, text: &str) -> anyhow::Result<String> {
        let from = self.scanned;
        let found = self.watch.wait(self.deadline, |seen| {
            let output = &seen.output[from..];
            let start = find(output, text.as_bytes())? + text.len();
            let len = output[start..].iter().position(|byte| *byte == b'\n')?;
            let rest = String::from_utf8_lossy(&output[start..start + len]);
            Some((from + start + len, rest.trim().to_owned()))
        });
        let (scanned, rest) =
            found.with_context(|| self.failure(&format!("no line with {text:?}")))?;
        self.scanned = scanned;
        Ok(rest)
    }

    /// Waits for a line of the guest's init: `vmtest: ` and `topic`. Returns the rest of the line.
    pub fn wait_for_guest(&mut self, topic: &str) -> anyhow::Result<String> {
        self.wait_for_output(&format!("vmtest: {topic}"))
    }

    /// Waits for the `nth` event (from 1) of this name.
    pub fn wait_for_event(&self, name: &str, nth: usize) -> anyhow::Result<JsonEvent> {
        self.watch
            .wait(self.deadline, |seen| {
                seen.events
                    .iter()
                    .filter(|event| event.name == name)
                    .nth(nth - 1)
                    .cloned()
            })
            .with_context(|| self.failure(&format!("no event {name} number {nth}")))
    }

    /// Waits until openvmm has ended and all of its output has arrived.
    pub fn wait_for_exit(&self) -> anyhow::Result<OpenvmmExit> {
        self.watch
            .wait(self.deadline, |seen| {
                seen.exit.filter(|_| seen.open_streams == 0)
            })
            .with_context(|| self.failure("openvmm did not end"))
    }

    /// Waits until openvmm has ended. Fails unless it ended with `exit` and a `halted` event with this reason.
    pub fn expect_halt(&self, exit: OpenvmmExit, reason: &str) -> anyhow::Result<()> {
        let ended = self.wait_for_exit()?;
        anyhow::ensure!(ended == exit, self.failure(&format!("expected {exit:?}")));
        let halted = self.wait_for_event("halted", 1)?;
        anyhow::ensure!(
            halted.reason.as_deref() == Some(reason),
            self.failure(&format!("expected to halt by {reason}"))
        );
        let seen = self.watch.lock();
        anyhow::ensure!(
            seen.malformed_events.is_empty(),
            "not events: {:?}",
            seen.malformed_events
        );
        Ok(())
    }

    /// Has the Linux guest power off, and waits until openvmm has ended.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        self.type_line("poweroff")?;
        self.expect_halt(OpenvmmExit::PoweredOff, "power_off")
    }

    /// Types a line for the guest.
    pub fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        self.type_bytes(format!("{line}\n").as_bytes())
    }

    fn type_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.input
            .as_mut()
            .context("openvmm has no terminal")?
            .write_all(bytes)
            .context("cannot type")
    }

    /// Switches to openvmm's prompt, types a command, and switches back when it has been executed. The guest's output is
    /// held back meanwhile.
    pub fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.last_command(command)?;
        let from = self.commanded;
        // The editor prints its prompt again for each key; the one after the command is on its own line.
        let end = self.watch.wait(self.deadline, |seen| {
            find(
                &plain_text(&seen.output[from..]),
                format!("\n{PROMPT}").as_bytes(),
            )
            .map(|_| seen.output.len())
        });
        let from = end.with_context(|| self.failure("no prompt after a command"))?;
        self.commanded = from;
        self.type_bytes(&[CONSOLE_KEY])?;
        // The editor would take what is typed before it ends.
        let ended = self.watch.wait(self.deadline, |seen| {
            find(&seen.output[from..], EDITOR_ENDS)
        });
        ended
            .map(drop)
            .with_context(|| self.failure("the prompt did not end"))
    }

    /// Switches to openvmm's prompt and types a command, without switching back.
    pub fn last_command(&mut self, command: &str) -> anyhow::Result<()> {
        self.type_bytes(&[CONSOLE_KEY])?;
        let from = self.commanded.max(self.scanned);
        let prompt = self.watch.wait(self.deadline, |seen| {
            find(&seen.output[from..], PROMPT.as_bytes())
        });
        let at = prompt.with_context(|| self.failure("no prompt of openvmm's console"))?;
        self.commanded = from + at + PROMPT.len();
        self.scanned = self.commanded;
        self.type_bytes(format!("{command}\r").as_bytes())
    }

    /// Waits for the first line of the guest's init that starts with one of `topics`. Returns the topic and the rest of the
    /// line.
    pub fn wait_for_any<'t>(&mut self, topics: &[&'t str]) -> anyhow::Result<(&'t str, String)> {
        let from = self.scanned;
        let found = self.watch.wait(self.deadline, |seen| {
            let output = &seen.output[from..];
            let first = topics
                .iter()
                .filter_map(|topic| {
                    let line = format!("vmtest: {topic}");
                    find(output, line.as_bytes()).map(|at| (at, line.len(), *topic))
                })
                .min()?;
            let start = first.0 + first.1;
            let len = output[start..].iter().position(|byte| *byte == b'\n')?;
            let rest = String::from_utf8_lossy(&output[start..start + len]);
            Some((from + start + len, first.2, rest.trim().to_owned()))
        });
        let (scanned, topic, rest) =
            found.with_context(|| self.failure(&format!("no line with any of {topics:?}")))?;
        self.scanned = scanned;
        Ok((topic, rest))
    }

    /// Types a command for the guest, and waits for its line with `topic`. Returns the rest of the line.
    pub fn ask(&mut self, command: &str, topic: &str) -> anyhow::Result<String> {
        self.type_line(command)?;
        self.wait_for_guest(topic)
    }

    /// Returns openvmm's state as JSON text, to investigate a guest that hangs. Waits for up to `limit`.
    pub fn inspect(&mut self, limit: Duration) -> anyhow::Result<String> {
        self.deadline = Instant::now() + limit;
        let from = self.watch.lock().output.len();
        self.scanned = from;
        self.command("inspect / --json")?;
        let seen = self.watch.lock();
        Ok(String::from_utf8_lossy(&plain_text(&seen.output[from..])).into_owned())
    }

    /// Sends openvmm a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(self.pid, signal).context("cannot send a signal")
    }

    /// Kills openvmm, unless it has ended. Returns how it ended.
    pub fn kill(&self) -> anyhow::Result<OpenvmmExit> {
        // Under the lock, so that the process id is still openvmm's.
        let seen = self.watch.lock();
        if seen.exit.is_none()
            && let Err(error) = rustix::process::kill_process(self.pid, Signal::KILL)
            // It may have just ended.
            && error != rustix::io::Errno::SRCH
        {
            return Err(error).context("cannot kill openvmm");
        }
        drop(seen);
        self.wait_for_exit()
    }

    /// All of the output so far.
    pub fn output(&self) -> Vec<u8> {
        self.watch.lock().output.clone()
    }

    /// All that went to standard error so far.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.watch.lock().errors).into_owned()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<JsonEvent> {
        self.watch.lock().events.clone()
    }

    /// An error message: `what`, and all that was seen of openvmm.
    pub fn failure(&self, what: &str) -> String {
        format!("{what}\n{}", self.watch.lock().describe())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Under the lock, so that the process id is still openvmm's.
        let seen = self.watch.lock();
        if seen.exit.is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Removes carriage returns and terminal control sequences from `output`.
fn plain_text(output: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(output.len());
    let mut bytes = output.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0x1b => {
                // ECMA-48: ESC [, parameters, and a final byte of at least '@'.
                if bytes.next() == Some(&b'[') {
                    bytes.find(|byte| (0x40..=0x7e).contains(*byte));
                }
            }
            b'\r' => {}
            _ => plain.push(byte),
        }
    }
    plain
}

fn watch_stream(
    watch: &Arc<VmWatch>,
    mut stream: impl Read + Send + 'static,
    add: fn(&mut crate::watch::Seen, &[u8]),
) {
    watch.update(|seen| seen.open_streams += 1);
    let watch = watch.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        // Reading a terminal that no process has open is an error.
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            watch.update(|seen| add(seen, &buffer[..n]));
        }
        watch.update(|seen| seen.open_streams -= 1);
    });
}

fn watch_events(watch: &Arc<VmWatch>, path: PathBuf) {
    watch.update(|seen| seen.open_streams += 1);
    let watch = watch.clone();
    thread::spawn(move || {
        if let Ok(events) = File::open(path) {
            for line in BufReader::new(events).lines().map_while(Result::ok) {
                watch.update(|seen| match serde_json::from_str(&line) {
                    Ok(event) => seen.events.push(event),
                    Err(_) => seen.malformed_events.push(line),
                });
            }
        }
        watch.update(|seen| seen.open_streams -= 1);
    });
}

fn open_fifo_writer(path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())
}
