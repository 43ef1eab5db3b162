//! A test starts this test binary again, as a program on a terminal of its own: [`program`].

use super::signals;
use super::signals::Ignored;
use crate::console;
use crate::console::GuestOutput;
use crate::control::PortInput;
use crate::control::tests::worker;
use crate::message::message;
use rustix::process::Pid;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::LocalModes;
use serial_16550::SerialBackend;
use serial_16550::SerialPort;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// Long enough for the slowest machine; a passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The environment variable that makes the test `program` a program.
const ROLE: &str = "OPENVMM_TEST_ROLE";

/// What the program does, if it is started as one.
#[test]
fn program() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let ignored = Ignored::at_start();
    super::restore_on_panic();
    signals::install(ignored).unwrap();
    match &*role {
        "reader" => run_console(Box::new(Reader)),
        "deaf" => run_console(Box::new(PortInput(SerialPort::new()))),
        "panic" | "abort" | "overflow" => {
            super::wait_and_take(super::Mode::Raw).unwrap();
            message!("ready");
            let mut key = [0];
            io::stdin().read_exact(&mut key).unwrap();
            match &*role {
                "panic" => panic!("as told"),
                "abort" => std::process::abort(),
                _ => message!("{}", overflow(1)),
            }
        }
        "ignored" => {
            for signal in [libc::SIGHUP, libc::SIGQUIT, libc::SIGTERM] {
                message!("ignored {signal}: {}", ignored.has(signal));
            }
            rustix::process::kill_process(rustix::process::getpid(), Signal::QUIT).unwrap();
            message!("alive");
        }
        "limited" => write_beyond_limit(),
        role => panic!("{role}"),
    }
    std::process::exit(0);
}

/// Uses the whole stack.
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    match frame[0] {
        0 => 0,
        _ => overflow(depth + 1) + frame[511],
    }
}

/// A guest that says what it reads.
struct Reader;

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            message!("read {byte}");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run_console(guest: console::GuestInput) {
    let (control, _) = worker();
    message!("ready");
    let ended = console::run(control, Some(guest), GuestOutput::new());
    super::restore();
    message!("ended {ended:?}");
}

fn write_beyond_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serial");
    let limit = Rlimit {
        current: Some(4096),
        ..rustix::process::getrlimit(Resource::Fsize)
    };
    rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
    let port = SerialPort::new();
    let backend = SerialBackend::file(&path).unwrap();
    let connection = port.connect("com1", backend).unwrap();
    for _ in 0..10_000 {
        assert!(port.wait_output_room(PATIENCE));
        assert!(port.write_output(b'x'));
    }
    port.flush(PATIENCE);
    let length = std::fs::metadata(&path).unwrap().len();
    message!("length {length}, failed {}", port.stats().failed > 0);
    assert!(connection.close(PATIENCE));
}

/// A terminal, and what was shown on it.
struct Terminal {
    controller: File,
    program: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&controller).unwrap();
        let name = rustix::pty::ptsname(&controller, Vec::new()).unwrap();
        let mut options = File::options();
        let program = options
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let controller = File::from(controller);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, shows) = (controller.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shows.lock().extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            controller,
            program,
            shown,
        }
    }

    /// Starts the program in a session of this terminal. `configure` can replace its streams.
    fn start(&self, role: &str, configure: impl FnOnce(&mut Command)) -> Child {
        let stream = || Stdio::from(self.program.try_clone().unwrap());
        // A shell ignores some signals for what it starts in the background, such as these tests.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", "setsid", "--ctty", "--wait"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "terminal::tests::program", "--nocapture"])
            .env(ROLE, role)
            .env("TERM", "xterm")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream());
        configure(&mut command);
        command.spawn().unwrap()
    }

    fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.controller).unwrap();
        !modes
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn local_modes(&self) -> LocalModes {
        let termios = rustix::termios::tcgetattr(&self.controller);
        termios.unwrap().local_modes
    }

    fn shows(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.shown.lock()).contains(text)
    }

    fn wait_for(&self, text: &str) {
        wait_until(
            || self.shows(text),
            || {
                let shown = self.shown.lock();
                format!("{text:?} is not in {:?}", String::from_utf8_lossy(&shown))
            },
        );
    }

    fn wait_until_raw(&self) {
        wait_until(|| self.is_raw(), || "the terminal is not raw".into());
    }

    fn press(&mut self, keys: &[u8]) {
        self.controller.write_all(keys).unwrap();
    }
}

fn wait_until(mut done: impl FnMut() -> bool, problem: impl Fn() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{}", problem());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

/// The letter of a process's state.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn wait_for_state(pid: Pid, wanted: char) {
    wait_until(
        || state(pid) == Some(wanted),
        || format!("the state is {:?}, not {wanted}", state(pid)),
    );
}

#[test]
fn every_signal_that_ends_the_process_gives_the_terminal_back() {
    for number in [
        libc::SIGQUIT,
        libc::SIGABRT,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGXCPU,
        libc::SIGSYS,
        40,
    ] {
        let terminal = Terminal::open();
        let before = terminal.local_modes();
        let mut child = terminal.start("reader", |_| {});
        terminal.wait_until_raw();
        let kill = Command::new("kill")
            .arg(format!("-{number}"))
            .arg(child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        assert_eq!(terminal.local_modes(), before, "signal {number}");
    }
}

#[test]
fn a_program_that_fails_gives_the_terminal_back() {
    for (role, message) in [
        ("panic", "as told"),
        ("abort", "ready"),
        ("overflow", "has overflowed its stack"),
    ] {
        let mut terminal = Terminal::open();
        let before = terminal.local_modes();
        let mut child = terminal.start(role, |_| {});
        terminal.wait_for("ready");
        terminal.press(b"x");
        let status = child.wait().unwrap();
        assert!(!status.success());
        terminal.wait_for(message);
        assert_eq!(terminal.local_modes(), before, "{role}");
    }
}

#[test]
fn a_stopped_program_leaves_the_terminal_and_takes_it_again() {
    let mut terminal = Terminal::open();
    let before = terminal.local_modes();
    let mut child = terminal.start("reader", |_| {});
    terminal.wait_until_raw();
    for _ in 0..2 {
        rustix::process::kill_process(pid(&child), Signal::TSTP).unwrap();
        wait_for_state(pid(&child), 'T');
        assert_eq!(terminal.local_modes(), before);
        rustix::process::kill_process(pid(&child), Signal::CONT).unwrap();
        terminal.wait_until_raw();
    }
    terminal.press(b"a\x11quit\r");
    terminal.wait_for("read 97");
    terminal.wait_for("ended Ok(Quit)");
    child.wait().unwrap();
    assert_eq!(terminal.local_modes(), before);
}

#[test]
fn in_the_background_the_program_runs_and_leaves_the_terminal_alone() {
    let mut terminal = Terminal::open();
    let before = terminal.local_modes();
    let stream = || Stdio::from(terminal.program.try_clone().unwrap());
    let mut shell = Command::new("setsid")
        .args(["--ctty", "--wait", "sh", "-i"])
        .env(ROLE, "reader")
        .env("TERM", "xterm")
        .env("PROGRAM", std::env::current_exe().unwrap())
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    terminal.press(b"\"$PROGRAM\" --exact terminal::tests::program --nocapture & echo pid=$!,\n");
    terminal.wait_for("ready");
    let shown = String::from_utf8_lossy(&terminal.shown.lock()).into_owned();
    let program = shown
        .split("pid=")
        .skip(1)
        .find_map(|rest| rest.split(',').next()?.parse().ok());
    let program = Pid::from_raw(program.unwrap()).unwrap();
    // The shell takes commands, and the program is not stopped.
    terminal.press(b"echo still $((40 + 2))\n");
    terminal.wait_for("still 42");
    assert!(matches!(state(program), Some('S' | 'R' | 'D')));
    assert_eq!(terminal.local_modes(), before);
    assert!(!terminal.shows("read "));
    terminal.press(b"fg\n");
    terminal.wait_until_raw();
    terminal.press(b"b\x11quit\r");
    terminal.wait_for("read 98");
    terminal.wait_for("ended Ok(Quit)");
    terminal.press(b"exit\n");
    shell.wait().unwrap();
    assert_eq!(terminal.local_modes(), before);
}

#[test]
fn ctrl_q_works_when_the_guest_reads_nothing() {
    let mut terminal = Terminal::open();
    let mut child = terminal.start("deaf", |_| {});
    terminal.wait_until_raw();
    // More than a serial port holds.
    for _ in 0..40 {
        terminal.press(&[b'x'; 1000]);
    }
    terminal.press(b"\x11quit\r");
    terminal.wait_for("ended Ok(Quit)");
    child.wait().unwrap();
}

#[test]
fn with_its_output_in_a_pipe_the_program_still_has_the_keys() {
    let mut terminal = Terminal::open();
    let before = terminal.local_modes();
    let (mut output, writer) = io::pipe().unwrap();
    let mut child = terminal.start("reader", |command| {
        command.stdout(writer);
    });
    terminal.wait_until_raw();
    // Ctrl-C is a key for the guest.
    terminal.press(b"\x03c");
    terminal.wait_for("read 3");
    terminal.wait_for("read 99");
    terminal.press(b"\x11");
    terminal.wait_for("openvmm>");
    terminal.press(b"help\r");
    terminal.wait_for("list the commands");
    terminal.press(b"quit\r");
    terminal.wait_for("ended Ok(Quit)");
    child.wait().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(
        !text.contains("openvmm>") && !text.contains("list the"),
        "{text}"
    );
    assert_eq!(terminal.local_modes(), before);
}

/// Runs the program without a terminal, below a shell that executes `before`. Returns its standard error.
fn run_below_shell(before: &str, role: &str) -> String {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{before}; exec \"$0\" --exact terminal::tests::program --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    errors
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let errors = run_below_shell("trap '' HUP QUIT", "ignored");
    assert_eq!(
        errors,
        "ignored 1: true\nignored 3: true\nignored 15: false\nalive\n"
    );
}

#[test]
fn a_file_that_may_not_grow_is_an_error_of_the_write() {
    let errors = run_below_shell("true", "limited");
    assert!(errors.contains("length 4096, failed true"), "{errors}");
}
