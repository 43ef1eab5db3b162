//! The program's exit codes for what needs no VM, and what it prints where nobody reads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

fn openvmm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openvmm"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    openvmm(args).output().unwrap()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (_, writer) = io::pipe().unwrap();
    writer.into()
}

#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    for args in [
        &["--kernel", "/nonexistent/vmlinuz"][..],
        &["--no-such-option"],
        &["--hv"],
        &["hibernation", "status", "--vmgs", "/nonexistent/vmgs"],
    ] {
        let status = openvmm(args).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}");
        let status = openvmm(args).stderr(closed()).stdout(closed()).status();
        assert_eq!(status.unwrap().code(), Some(2), "{args:?}");
    }
    let mut command = openvmm(&["--kernel", "/nonexistent/vmlinuz"]);
    let status = command.env("OPENVMM_LOG", "=").stderr(closed()).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let kernel = kernel.path().to_str().unwrap();
    for args in [
        &["--help"][..],
        &["--version"],
        &["--completions", "bash"],
        &["--kernel", kernel, "--check-config"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let written = openvmm(args).stdout(full).output().unwrap();
        assert_eq!(written.status.code(), Some(1), "{args:?}");
        let errors = String::from_utf8_lossy(&written.stderr);
        assert!(
            errors.contains("cannot write to standard output"),
            "{errors}"
        );
        let status = openvmm(args).stdout(closed()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}");
        assert_eq!(output(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_named_pipe_as_kernel_is_refused_at_once() {
    use rustix::fs::Mode;
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    for check in [&["--check-config"][..], &[]] {
        let args = [&["--kernel", pipe.to_str().unwrap()], check].concat();
        let refused = output(&args);
        assert_eq!(refused.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(
            errors.contains("it is a named pipe, not a regular file"),
            "{errors}"
        );
    }
}

#[test]
fn a_file_that_is_an_input_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("kernel");
    std::fs::write(&kernel, "precious").unwrap();
    let path = kernel.to_str().unwrap();
    for option in ["--log-file", "--pidfile", "--json-events"] {
        let refused = output(&["--kernel", path, option, path]);
        assert_eq!(refused.status.code(), Some(2), "{option}");
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(errors.contains("are the same file"), "{errors}");
    }
    // Standard output, opened to append.
    let appended = File::options().append(true).open(&kernel).unwrap();
    let mut command = openvmm(&["--kernel", path, "--check-config"]);
    let status = command.stdout(appended).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_eq!(std::fs::read(&kernel).unwrap(), b"precious");
}

#[test]
fn options_that_are_missing_are_named() {
    let refused = output(&["--kernel", "/vmlinuz", "--tpm"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "error: --tpm: not supported yet: a TPM\n"
    );
}
