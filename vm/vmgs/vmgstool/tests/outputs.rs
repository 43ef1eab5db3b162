//! Outputs: none replaces an input, none is lost without an error, and nothing waits for another process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dir;

use dir::Dir;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A directory with the store `a.vmgs`, which has files 1, 14 and 19, and with `in`, `key` and `vars.json`.
fn prepare() -> Dir {
    let dir = Dir::new();
    let nvram = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nvram.bin");
    dir.put("in", b"eight by");
    dir.put("key", &[1; 32]);
    dir.put("nvram", &std::fs::read(nvram).unwrap());
    dir.ok("create -f a.vmgs");
    for (id, data) in [(1, "nvram"), (14, "in"), (19, "in")] {
        dir.ok(&format!("write -f a.vmgs -i {id} -d {data}"));
    }
    dir.ok("uefi-nvram export -f a.vmgs -o vars.json");
    dir
}

/// A command with these arguments, separated by spaces, in the directory.
fn command(dir: &Dir, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmgstool"));
    command
        .args(args.split(' '))
        .current_dir(dir.path(""))
        .stdin(Stdio::null());
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_output_that_is_the_store_is_refused_under_every_name() {
    let dir = prepare();
    let store = dir.path("a.vmgs");
    std::fs::hard_link(&store, dir.path("hard")).unwrap();
    symlink("a.vmgs", dir.path("soft")).unwrap();
    std::fs::create_dir(dir.path("sub")).unwrap();
    let absolute = store.to_str().unwrap();
    let before = dir.get("a.vmgs");
    for other in [
        "a.vmgs",
        "hard",
        "soft",
        "sub/../a.vmgs",
        absolute,
        "/proc/self/fd/0",
        "/dev/stdin",
    ] {
        for args in [
            format!("dump -f a.vmgs -i 14 -d {other}"),
            format!("dump -f a.vmgs -i 14 -d {other} --force"),
            format!("extract -f a.vmgs -i 14 -d {other} --force"),
            format!("extract -f a.vmgs --image -d {other} --force"),
            format!("uefi-nvram dump -f a.vmgs -o {other}"),
            format!("uefi-nvram export -f a.vmgs -o {other} --force"),
            format!("write -f a.vmgs -i 14 -d {other} --force"),
            format!("inject -f a.vmgs -i 14 -d {other} --force"),
            format!("copy-igvmfile -f a.vmgs -d {other} -r SNP"),
            format!("uefi-nvram import -f a.vmgs -d {other}"),
            format!("uefi-nvram add -f a.vmgs -n New -v {GLOBAL} -d {other}"),
            format!("delete -f a.vmgs -i 14 -k {other}"),
            format!("create -f a.vmgs -k {other} -e AES_GCM --force"),
            format!("test two-keys -f a.vmgs --first-key-path {other} --force"),
        ] {
            let output = command(&dir, &args)
                .stdin(File::open(&store).unwrap())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1), "{args}");
            let told = errors(&output);
            // A key that exists is refused before.
            let expected = if args.starts_with("test") {
                "exists already"
            } else {
                "same file"
            };
            assert!(
                told.contains("same file") || told.contains(expected),
                "{args}: {told}"
            );
            assert!(dir.get("a.vmgs") == before, "{args}");
        }
    }
}

#[test]
fn outputs_that_are_other_inputs_or_outputs_are_refused() {
    let dir = prepare();
    std::fs::create_dir(dir.path("out")).unwrap();
    // All files are extracted to names that the user does not give.
    std::fs::hard_link(dir.path("a.vmgs"), dir.path("out/HIBERNATION_TOKEN")).unwrap();
    let names = dir.names();
    for (args, kept) in [
        ("create -f key -k key -e AES_GCM --force", "key"),
        ("dump -f a.vmgs -i 14 -k key -d key", "key"),
        (
            "uefi-nvram dump-from-json -f vars.json -o vars.json",
            "vars.json",
        ),
        ("uefi-nvram dump -f a.vmgs -k key -o key --force", "key"),
        ("extract -f a.vmgs -d out --force", "a.vmgs"),
        (
            "test two-keys -f new --first-key-path one --second-key-path ./one",
            "key",
        ),
        ("test two-keys -f new --first-key-path new", "key"),
    ] {
        let before = dir.get(kept);
        let output = dir.run(args);
        assert_eq!(output.status.code(), Some(1), "{args}");
        let told = errors(&output);
        assert!(told.contains("same file"), "{args}: {told}");
        assert!(dir.get(kept) == before, "{args}");
        assert_eq!(dir.names(), names, "{args}");
    }
    assert_eq!(std::fs::read_dir(dir.path("out")).unwrap().count(), 1);
    // A result may be standard output, which the shell has created.
    let output = command(&dir, "dump -f a.vmgs -i 14 -d /dev/stdout --force")
        .stdout(File::create(dir.path("result")).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(dir.get("result"), b"eight by");
}

#[test]
fn standard_output_is_not_appended_to_an_input() {
    let dir = prepare();
    for (args, kept) in [
        ("dump -f a.vmgs -i 14 --raw-stdout", "a.vmgs"),
        ("ls -f a.vmgs", "a.vmgs"),
        ("uefi-nvram remove-boot-entries -f a.vmgs", "a.vmgs"),
        ("dump -f a.vmgs -i 14 -k key", "key"),
        ("uefi-nvram dump-from-json -f vars.json", "vars.json"),
    ] {
        let before = dir.get(kept);
        let appended = File::options().append(true).open(dir.path(kept)).unwrap();
        let output = command(&dir, args).stdout(appended).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}");
        assert!(errors(&output).contains("standard output"), "{args}");
        assert!(dir.get(kept) == before, "{args}");
    }
}

/// Commands that write to standard output, and their exit codes.
const PRINTING: [(&str, i32); 19] = [
    ("dump -f a.vmgs -i 14 --raw-stdout", 0),
    ("dump -f a.vmgs -i 14", 0),
    ("dump -f a.vmgs -i 14 --decode", 0),
    ("dump -f a.vmgs -i 14 --json", 0),
    ("query-size -f a.vmgs -i 14", 0),
    ("query-size --json -f a.vmgs -i 14", 0),
    ("query-encryption --json -f a.vmgs", 2),
    ("dump-headers -f a.vmgs", 0),
    ("dump-file-table -f a.vmgs", 0),
    ("ls -f a.vmgs", 0),
    ("verify -f a.vmgs", 9),
    ("verify --json -f a.vmgs", 9),
    ("uefi-nvram list -f a.vmgs", 0),
    ("uefi-nvram dump -f a.vmgs", 0),
    ("uefi-nvram export -f a.vmgs", 0),
    ("completions bash", 0),
    ("--help", 0),
    ("help dump", 0),
    ("--version", 0),
];

#[test]
fn what_does_not_fit_on_a_full_device_is_an_error() {
    let dir = prepare();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (args, _) in PRINTING {
        let output = command(&dir, args).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}");
        let told = errors(&output);
        assert!(told.contains("No space left"), "{args}: {told}");
    }
    for args in [
        "dump -f a.vmgs -i 14 -d /dev/full",
        "extract -f a.vmgs -i 14 -d /dev/full",
        "uefi-nvram dump -f a.vmgs -o /dev/full",
        "uefi-nvram export -f a.vmgs -o /dev/full",
        "uefi-nvram dump-from-json -f vars.json -o /dev/full",
    ] {
        let output = dir.run(args);
        assert_eq!(output.status.code(), Some(1), "{args}");
        assert!(errors(&output).contains("No space left"), "{args}");
    }
    // What was to be told is told before anything is changed.
    let before = dir.get("a.vmgs");
    let remove = "uefi-nvram remove-boot-entries -f a.vmgs";
    let output = command(&dir, remove).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(dir.get("a.vmgs") == before);
}

#[test]
fn a_reader_that_stops_reading_changes_no_exit_code() {
    let dir = prepare();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for (args, code) in PRINTING {
        let output = command(&dir, args).stdout(closed()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args}");
        assert!(!errors(&output).contains("pipe"), "{args}");
    }
    let remove = "uefi-nvram remove-boot-entries -f a.vmgs";
    let output = command(&dir, remove).stdout(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!dir.ok("uefi-nvram list -f a.vmgs").contains("BootOrder"));
}

#[test]
fn nothing_panics_when_messages_cannot_be_written() {
    let dir = prepare();
    let (reader, broken) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (args, code) in [
        ("query-size -f a.vmgs -i 14", 0),
        ("query-size -f a.vmgs -i 5", 4),
        ("query-encryption -f a.vmgs", 2),
        ("ls -f missing", 1),
        ("-v ls -f a.vmgs", 0),
        ("no-such-command", 2),
        ("-c -f other.vmgs -s 1", 1),
    ] {
        for stderr in [
            Stdio::from(full.try_clone().unwrap()),
            Stdio::from(broken.try_clone().unwrap()),
        ] {
            let mut command = command(&dir, args);
            let status = command
                .stdout(Stdio::null())
                .stderr(stderr)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "{args}");
        }
        let closed = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "exec {} {args} <&- >&- 2>&-",
                env!("CARGO_BIN_EXE_vmgstool")
            ))
            .current_dir(dir.path(""))
            .status()
            .unwrap();
        assert_eq!(closed.code(), Some(code), "{args}");
    }
}

/// The limit that `ulimit -f` sets (RLIMIT_FSIZE), whose signal ends a process that does not handle it.
#[test]
fn a_limit_on_the_size_of_files_is_an_error() {
    let dir = prepare();
    dir.put("large", &[7; 100_000]);
    dir.ok("write -f a.vmgs -i 5 -d large");
    let names = dir.names();
    for args in [
        "create -f new.vmgs",
        "dump -f a.vmgs -i 5 -d out",
        "write -f a.vmgs -i 6 -d large",
        "grow -f a.vmgs -s 8388608",
    ] {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "ulimit -f 64; exec {} {args}",
                env!("CARGO_BIN_EXE_vmgstool")
            ))
            .current_dir(dir.path(""))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args}: {}", output.status);
        let told = errors(&output);
        assert!(told.contains("File too large"), "{args}: {told}");
        assert_eq!(dir.names(), names, "{args}");
        assert_eq!(dir.code("query-size -f a.vmgs -i 6"), 4, "{args}");
        assert_eq!(dir.ok("query-size -f a.vmgs -i 5"), "100000\n");
    }
}

#[test]
fn what_is_not_a_file_is_refused_at_once() {
    let dir = prepare();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    std::fs::create_dir(dir.path("directory")).unwrap();
    let _socket = UnixListener::bind(dir.path("socket")).unwrap();
    let before = dir.get("a.vmgs");
    for (name, kind) in [
        ("pipe", "a pipe"),
        ("directory", "a directory"),
        ("socket", "a socket"),
    ] {
        for args in [
            format!("ls -f {name}"),
            format!("delete -f {name} -i 1"),
            format!("grow -f {name} -s 8388608"),
            format!("dump-headers -f {name}"),
            format!("--raw ls -f {name}"),
            format!("create -f {name} --force"),
            format!("ls -f a.vmgs -k {name}"),
            format!("write -f a.vmgs -i 5 -d {name}"),
            format!("copy-igvmfile -f a.vmgs -d {name} -r SNP"),
            format!("uefi-nvram import -f a.vmgs -d {name}"),
            format!("uefi-nvram dump-from-json -f {name}"),
            format!("dump -f a.vmgs -i 14 -d {name}"),
            format!("uefi-nvram dump -f a.vmgs -o {name}"),
            format!("test make-key --key-path {name} --force"),
        ] {
            let output = dir.run(&args);
            assert_eq!(output.status.code(), Some(1), "{args}");
            let told = errors(&output);
            assert!(
                told.contains(kind) || told.contains("is not a file"),
                "{args}: {told}"
            );
        }
    }
    assert!(dir.get("a.vmgs") == before);
    // The pipes of a shell are streams that somebody writes and reads.
    let shell = format!(
        "printf text | {tool} write -f a.vmgs -i 5 -d /dev/stdin && {tool} dump -f a.vmgs -i 5 -d /dev/stdout | cat",
        tool = env!("CARGO_BIN_EXE_vmgstool")
    );
    let output = Command::new("sh")
        .arg("-c")
        .arg(shell)
        .current_dir(dir.path(""))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"text", "{}", errors(&output));
}
