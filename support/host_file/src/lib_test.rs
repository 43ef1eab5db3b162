use super::*;
use rustix::fs::CWD;
use rustix::fs::Mode;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;

fn make_pipe(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn inputs_of_other_types_are_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    make_pipe(&pipe);
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, kind) in [
        (&*pipe, "a named pipe"),
        (&*socket, "a socket"),
        (dir.path(), "a directory"),
        (Path::new("/dev/null"), "a character device"),
    ] {
        for (allowed, expected) in [
            (Allowed::Regular, "a regular file"),
            (Allowed::RegularOrBlock, "a regular file or a block device"),
        ] {
            let error = open_input(path, allowed).unwrap_err();
            assert_eq!(error.to_string(), format!("it is {kind}, not {expected}"));
        }
    }
    let missing = open_input(&dir.path().join("missing"), Allowed::Regular).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn regular_files_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "old content").unwrap();
    let mut text = String::new();
    let mut file = open_input(&path, Allowed::Regular).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old content");
    let flags = rustix::fs::fcntl_getfl(&file).unwrap();
    assert!(!flags.contains(OFlags::NONBLOCK));
    open_output(&path).unwrap().write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn outputs_are_files_devices_and_pipes_with_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    make_pipe(&pipe);
    let error = open_output(&pipe).unwrap_err();
    assert_eq!(error.to_string(), "no process reads the named pipe");
    // Reading and writing: Linux opens it without a peer.
    let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
    open_output(&pipe).unwrap().write_all(b"x").unwrap();
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    open_output(Path::new("/dev/null")).unwrap();
    let error = open_output(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it is a directory, not a file for output"
    );
}
