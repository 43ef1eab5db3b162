//! One openvmm process with its guest.

use crate::Environment;
use crate::Event;
use crate::Exit;
use crate::terminal;
use crate::watch::Watch;
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

/// The key that leads from the guest's console to openvmm's own.
const CONSOLE_KEY: u8 = 0x11;

/// What openvmm's console prints when it waits for a command.
const PROMPT: &str = "openvmm>";

/// The editor's last words: pasting is no longer bracketed.
const EDITOR_ENDS: &[u8] = b"\x1b[?2004l";

/// What openvmm's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Input and output are a terminal; errors are apart.
    Terminal,
    /// `/dev/null` and pipes, as under a service manager.
    Null,
    /// Nobody reads the output: its pipe is closed.
    ClosedOutput,
}

/// An openvmm command line in the making.
#[derive(Debug, Clone)]
pub struct VmBuilder {
    program: PathBuf,
    args: Vec<OsString>,
    memory: String,
    stdio: Stdio,
    limit: Duration,
    /// Holds files that the arguments name.
    kept: Option<Arc<TempDir>>,
}

impl VmBuilder {
    /// openvmm without arguments. Nothing waits for longer than `limit` after its start.
    pub fn new(environment: &Environment, limit: Duration) -> Self {
        Self {
            program: environment.openvmm.clone(),
            args: Vec::new(),
            memory: "512M".to_owned(),
            stdio: Stdio::Terminal,
            limit,
            kept: None,
        }
    }

    /// openvmm with the Linux guest, which prints little and runs the comma-separated `commands` of its
    /// init before it listens to the console.
    pub fn linux(environment: &Environment, limit: Duration, commands: &str) -> Self {
        Self::new(environment, limit).kernel(environment, commands)
    }

    /// Adds the Linux guest, which runs these commands.
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

    /// Keeps a directory for as long as openvmm may need it.
    pub(crate) fn keep(mut self, dir: Arc<TempDir>) -> Self {
        self.kept = Some(dir);
        self
    }

    /// Sets `-m`.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.memory = memory.into();
        self
    }

    /// Sets what the standard streams are.
    #[must_use]
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// Starts openvmm. Can be repeated: each is another process with the same arguments.
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
            Stdio::Null | Stdio::ClosedOutput => Command::new(&self.program),
        };
        command
            .args(&self.args)
            .args(["-m", &self.memory, "--json-events"])
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
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        // The program's ends of the terminal and pipes live on in `command`.
        drop(command);

        let watch = Arc::new(Watch::default());
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
                    seen.exit = Some(status.map_or(Exit::Unknown(-1), Exit::from));
                });
                // Lets the reader of the events go if openvmm never opened them.
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
    watch: Arc<Watch>,
    /// The terminal's controlling side.
    input: Option<File>,
    pid: Pid,
    deadline: Instant,
    _dir: TempDir,
    _kept: Option<Arc<TempDir>>,
    /// How much of the output has been waited for already.
    scanned: usize,
    /// Where the output after the last command begins.
    commanded: usize,
}

impl Vm {
    /// Waits for `text` in the output, after what was last waited for. Returns the rest of its line.
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

    /// Waits for what the guest's init says: the line that starts with `vmtest: ` and `topic`.
    pub fn wait_for_guest(&mut self, topic: &str) -> anyhow::Result<String> {
        self.wait_for_output(&format!("vmtest: {topic}"))
    }

    /// Waits for the `nth` event (from 1) of this name.
    pub fn wait_for_event(&self, name: &str, nth: usize) -> anyhow::Result<Event> {
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

    /// Waits for openvmm to end, and for all of its output.
    pub fn wait_for_exit(&self) -> anyhow::Result<Exit> {
        self.watch
            .wait(self.deadline, |seen| {
                seen.exit.filter(|_| seen.open_streams == 0)
            })
            .with_context(|| self.failure("openvmm did not end"))
    }

    /// Waits for the end, and fails unless it is `exit`, with a `halted` event of this reason.
    pub fn expect_halt(&self, exit: Exit, reason: &str) -> anyhow::Result<()> {
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

    /// Leaves the guest's console for openvmm's, gives it a command, and goes back when it is carried out: the
    /// guest's output is held back meanwhile.
    pub fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.last_command(command)?;
        let from = self.commanded;
        // The editor shows its prompt again for each key; the one after the command is on a line of its own.
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
        // Whatever is typed before the editor has ended is the editor's.
        let ended = self.watch.wait(self.deadline, |seen| {
            find(&seen.output[from..], EDITOR_ENDS)
        });
        ended
            .map(drop)
            .with_context(|| self.failure("the prompt does not end"))
    }

    /// Leaves the guest's console for openvmm's and gives it a command, after which there is no way back.
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

    /// Whether the guest says this next: the topic of whichever of its lines starting with one of `topics` comes first,
    /// with the rest of that line.
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

    /// Gives the guest a command, and waits for what it says of `topic`.
    pub fn ask(&mut self, command: &str, topic: &str) -> anyhow::Result<String> {
        self.type_line(command)?;
        self.wait_for_guest(topic)
    }

    /// What openvmm tells of its state, for whoever looks into a guest that hangs. Waits for up to `limit`.
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

    /// Ends openvmm as a crash of the host does, unless it has ended. Returns how it ended.
    pub fn kill(&self) -> anyhow::Result<Exit> {
        // Under the lock, so that the process id is still openvmm's.
        let seen = self.watch.lock();
        if seen.exit.is_none()
            && let Err(error) = rustix::process::kill_process(self.pid, Signal::KILL)
            // It may have ended a moment ago.
            && error != rustix::io::Errno::SRCH
        {
            return Err(error).context("cannot end openvmm");
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
    pub fn events(&self) -> Vec<Event> {
        self.watch.lock().events.clone()
    }

    /// `what` went wrong, with everything that may explain it.
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

/// `output` without carriage returns and without the sequences by which the editor controls the terminal.
fn plain_text(output: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(output.len());
    let mut bytes = output.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0x1b => {
                // ECMA-48: ESC [, then parameters, up to a final byte from '@' on.
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
    watch: &Arc<Watch>,
    mut stream: impl Read + Send + 'static,
    add: fn(&mut crate::watch::Seen, &[u8]),
) {
    watch.update(|seen| seen.open_streams += 1);
    let watch = watch.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        // A terminal without a program on the other side reads as an error.
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            watch.update(|seen| add(seen, &buffer[..n]));
        }
        watch.update(|seen| seen.open_streams -= 1);
    });
}

fn watch_events(watch: &Arc<Watch>, path: PathBuf) {
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
