//! The tool at a terminal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

const QUESTION: &str = "Replace it? [y/N]";
/// Text in the progress bar of a copy of [`IMAGE_LEN`] bytes.
const BAR: &str = "/6.00 MiB";
const IMAGE_LEN: usize = 6 << 20;

/// Which of the tool's streams are a terminal. Standard output never is.
#[derive(Clone, Copy, PartialEq)]
enum Terminal {
    InputAndErrors,
    ErrorsOnly,
    Nothing,
}

/// The result of running the tool.
struct Outcome {
    code: i32,
    /// Standard error, or the output on the terminal.
    errors: String,
    output: Vec<u8>,
}

impl Outcome {
    fn asked(&self) -> bool {
        self.errors.contains(QUESTION)
    }
}

/// A new pseudo-terminal: the user's side and the side of programs.
fn open_terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&person).unwrap();
    rustix::pty::unlockpt(&person).unwrap();
    let name = rustix::pty::ptsname(&person, Vec::new()).unwrap();
    let program = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let size = Winsize {
        ws_row: 25,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&program, size).unwrap();
    (File::from(person), program)
}

/// Runs the tool in `dir`. The text `typed` is in the terminal's input from the start, so that an unexpected
/// question gets an answer too.
fn run(dir: &Path, args: &str, terminal: Terminal, typed: &str) -> Outcome {
    let (mut person, program) = open_terminal();
    person.write_all(typed.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmgstool"));
    command
        .args(args.split(' '))
        .current_dir(dir)
        .env("TERM", "xterm")
        .stdin(match terminal {
            Terminal::InputAndErrors => Stdio::from(program.try_clone().unwrap()),
            _ => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(match terminal {
            Terminal::Nothing => Stdio::piped(),
            _ => Stdio::from(program.try_clone().unwrap()),
        });
    let child = command.spawn().unwrap();
    // The output ends when no program has the terminal open any more.
    drop((command, program));
    let reader = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // The end of the output is an error (EIO).
        let _ = person.read_to_end(&mut shown);
        shown
    });
    let output = child.wait_with_output().unwrap();
    let mut errors = reader.join().unwrap();
    errors.extend(&output.stderr);
    Outcome {
        code: output.status.code().unwrap(),
        errors: String::from_utf8_lossy(&errors).into_owned(),
        output: output.stdout,
    }
}

fn script(dir: &Path, args: &str) -> Outcome {
    run(dir, args, Terminal::Nothing, "")
}

/// A command that replaces something, and how to determine whether it did.
struct Replacing {
    command: &'static str,
    /// A file outside the store, or a command that shows a file in the store.
    watch: Watch,
    /// The exit code without a terminal and without the flag.
    in_scripts: i32,
}

enum Watch {
    File(&'static str),
    Shown(&'static str),
}

const REPLACING: [Replacing; 10] = [
    Replacing {
        command: "create -f other.vmgs -s 65536",
        watch: Watch::File("other.vmgs"),
        in_scripts: 1,
    },
    Replacing {
        command: "write -f a.vmgs -i 5 -d new",
        watch: Watch::Shown("dump -f a.vmgs -i 5"),
        in_scripts: 1,
    },
    Replacing {
        command: "inject -f a.vmgs -i 5 -d new",
        watch: Watch::Shown("dump -f a.vmgs -i 5"),
        in_scripts: 1,
    },
    Replacing {
        command: "extract -f a.vmgs -i 6 -d out",
        watch: Watch::File("out"),
        in_scripts: 1,
    },
    Replacing {
        // Scripts expect this.
        command: "dump -f a.vmgs -i 6 -d out",
        watch: Watch::File("out"),
        in_scripts: 0,
    },
    Replacing {
        command: "move -f a.vmgs --src 6 --dst 5",
        watch: Watch::Shown("dump -f a.vmgs -i 5"),
        in_scripts: 1,
    },
    Replacing {
        command: "uefi-nvram add -f a.vmgs -n Lang -v 8be4df61-93ca-11d2-aa0d-00e098032b8c -d new",
        watch: Watch::Shown("uefi-nvram dump -f a.vmgs"),
        in_scripts: 1,
    },
    Replacing {
        command: "uefi-nvram export -f a.vmgs -o out",
        watch: Watch::File("out"),
        in_scripts: 1,
    },
    Replacing {
        command: "uefi-nvram dump -f a.vmgs -o out",
        watch: Watch::File("out"),
        in_scripts: 0,
    },
    Replacing {
        command: "test make-key --key-path out",
        watch: Watch::File("out"),
        in_scripts: 1,
    },
];

fn prepare() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for (name, content) in [("old", "old content"), ("new", "new content"), ("out", "")] {
        std::fs::write(path.join(name), content).unwrap();
    }
    for command in [
        "create -f a.vmgs",
        "create -f other.vmgs -s 32768",
        "write -f a.vmgs -i 5 -d old",
        "write -f a.vmgs -i 6 -d new",
        "uefi-nvram add -f a.vmgs -n Lang -v 8be4df61-93ca-11d2-aa0d-00e098032b8c -d old",
    ] {
        let outcome = script(path, command);
        assert_eq!(outcome.code, 0, "{command}: {}", outcome.errors);
    }
    dir
}

impl Replacing {
    fn look(&self, dir: &Path) -> Vec<u8> {
        match self.watch {
            Watch::File(name) => std::fs::read(dir.join(name)).unwrap(),
            Watch::Shown(command) => script(dir, command).output,
        }
    }

    /// Runs the command in a new directory. Returns the result and whether it replaced the output.
    fn run(&self, flag: &str, terminal: Terminal, typed: &str) -> (Outcome, bool) {
        let dir = prepare();
        let before = self.look(dir.path());
        let args = format!("{}{flag}", self.command);
        let outcome = run(dir.path(), &args, terminal, typed);
        let replaced = self.look(dir.path()) != before;
        (outcome, replaced)
    }
}

#[test]
fn at_a_terminal_the_tool_asks_before_it_replaces() {
    for case in &REPLACING {
        let command = case.command;
        for yes in ["y\n", "Y\n", "yes\n"] {
            let (outcome, replaced) = case.run("", Terminal::InputAndErrors, yes);
            assert!(outcome.asked(), "{command}: {}", outcome.errors);
            assert_eq!((outcome.code, replaced), (0, true), "{command} {yes:?}");
        }
        // Nothing else means yes: not a line that starts with `y`, and not the end of the input.
        for no in ["n\n", "\n", "yellow\n", "\u{4}"] {
            let (outcome, replaced) = case.run("", Terminal::InputAndErrors, no);
            assert!(outcome.asked(), "{command}: {}", outcome.errors);
            assert_eq!((outcome.code, replaced), (1, false), "{command} {no:?}");
        }
    }
}

#[test]
fn force_skips_the_question() {
    for case in &REPLACING {
        for terminal in [Terminal::InputAndErrors, Terminal::Nothing] {
            let (outcome, replaced) = case.run(" --force", terminal, "n\n");
            assert!(!outcome.asked(), "{}: {}", case.command, outcome.errors);
            assert_eq!((outcome.code, replaced), (0, true), "{}", case.command);
        }
    }
}

#[test]
fn scripts_are_not_asked() {
    for case in &REPLACING {
        // Input is ignored if the tool does not ask, wherever standard error goes.
        for terminal in [Terminal::ErrorsOnly, Terminal::Nothing] {
            let (outcome, replaced) = case.run("", terminal, "y\n");
            assert!(!outcome.asked(), "{}: {}", case.command, outcome.errors);
            assert_eq!(outcome.code, case.in_scripts, "{}", case.command);
            assert_eq!(replaced, case.in_scripts == 0, "{}", case.command);
            if case.in_scripts != 0 {
                assert!(outcome.errors.contains("--force"), "{}", outcome.errors);
            }
        }
    }
}

#[test]
fn the_tool_does_not_ask_about_new_files() {
    for command in [
        "write -f a.vmgs -i 7 -d new",
        "dump -f a.vmgs -i 6 -d fresh",
        "extract -f a.vmgs -i 6 -d fresh",
        "move -f a.vmgs --src 6 --dst 7",
        "create -f fresh.vmgs",
    ] {
        let dir = prepare();
        let outcome = run(dir.path(), command, Terminal::InputAndErrors, "n\n");
        assert_eq!(outcome.code, 0, "{command}: {}", outcome.errors);
        assert!(!outcome.asked(), "{command}: {}", outcome.errors);
    }
}

#[test]
fn large_copies_show_a_progress_bar_only_at_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::write(path.join("image"), vec![7; IMAGE_LEN]).unwrap();
    std::fs::write(path.join("small"), [7; 1000]).unwrap();
    assert_eq!(script(path, "create -f a.vmgs -s 33554432").code, 0);
    assert_eq!(script(path, "write -f a.vmgs -i 19 -d image").code, 0);
    for command in [
        "write -f a.vmgs -i 19 -d image --force",
        "inject -f a.vmgs -i 19 -d image --force",
        "dump -f a.vmgs -i 19 -d out --force",
        "dump -f a.vmgs -i 19 --raw-stdout",
        "extract -f a.vmgs -i 19 -d out --force",
        "verify -f a.vmgs",
        "grow -f a.vmgs -s 34603008",
    ] {
        for terminal in [
            Terminal::InputAndErrors,
            Terminal::ErrorsOnly,
            Terminal::Nothing,
        ] {
            let outcome = run(path, command, terminal, "");
            assert_eq!(outcome.code, 0, "{command}: {}", outcome.errors);
            let shown = outcome.errors.contains("MiB");
            assert_eq!(
                shown,
                terminal != Terminal::Nothing,
                "{command}: {}",
                outcome.errors
            );
            assert!(!String::from_utf8_lossy(&outcome.output).contains("MiB"));
            // Control characters are only for terminals.
            assert_eq!(outcome.errors.contains('\u{1b}'), shown, "{command}");
            if terminal != Terminal::Nothing && !command.starts_with("grow") {
                assert!(outcome.errors.contains(BAR), "{}", outcome.errors);
            }
            if command.contains("--raw-stdout") {
                assert_eq!(outcome.output, vec![7; IMAGE_LEN]);
            }
        }
    }
    for command in [
        "write -f a.vmgs -i 5 -d small --force",
        "dump -f a.vmgs -i 5 -d out --force",
    ] {
        let outcome = run(path, command, Terminal::InputAndErrors, "");
        assert_eq!(outcome.code, 0, "{command}: {}", outcome.errors);
        assert!(!outcome.errors.contains('\u{1b}'), "{}", outcome.errors);
    }
}
