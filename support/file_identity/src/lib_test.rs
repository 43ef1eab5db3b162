use super::*;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

/// `a` exists, and `new` does not.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"content").unwrap();
    dir
}

fn written_and_read(written: &Path, read: &Path) -> Result<(), String> {
    check_distinct(&[
        FileUse::write("the output", written),
        FileUse::read("the input", read),
    ])
    .map_err(|error| error.to_string())
}

#[test]
fn every_name_of_a_file_is_recognized() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    std::fs::hard_link(at("a"), at("hard")).unwrap();
    symlink("a", at("soft")).unwrap();
    symlink(at("soft"), at("softer")).unwrap();
    std::fs::create_dir(at("below")).unwrap();
    let open = File::open(at("a")).unwrap();
    let descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
    let relative = dir.path().join("below/../a");
    for name in [
        at("a"),
        at("hard"),
        at("soft"),
        at("softer"),
        relative,
        descriptor.into(),
    ] {
        assert!(written_and_read(&at("a"), &name).is_err(), "{name:?}");
        assert!(written_and_read(&name, &at("a")).is_err(), "{name:?}");
    }
    assert_eq!(
        FileIdentity::of_metadata(&open.metadata().unwrap()),
        FileIdentity::of_path(&at("a"))
    );
    // A copy is another file, and so is one that shares only the name.
    std::fs::copy(at("a"), at("copy")).unwrap();
    std::fs::copy(at("a"), at("below/a")).unwrap();
    for name in ["copy", "below/a", "below", "missing/a"] {
        assert_eq!(written_and_read(&at("a"), &at(name)), Ok(()), "{name}");
    }
}

#[test]
fn names_of_a_file_that_does_not_exist_are_recognized() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    symlink("new", at("soft")).unwrap();
    symlink(dir.path(), at("here")).unwrap();
    symlink("loop", at("loop")).unwrap();
    for name in ["new", "soft", "here/new", "./new", "here/soft"] {
        let uses = [
            FileUse::write("one", at("new")),
            FileUse::write("other", at(name)),
        ];
        assert!(check_distinct(&uses).is_err(), "{name}");
    }
    for name in ["newer", "a", "loop", "here", "missing/new"] {
        assert_eq!(written_and_read(&at("new"), &at(name)), Ok(()), "{name}");
    }
    // A path without a directory is in the current one.
    let here = std::env::current_dir().unwrap().join("no such file");
    assert!(written_and_read(Path::new("no such file"), &here).is_err());
}

#[test]
fn only_files_that_are_written_must_be_distinct() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    let read_twice = [FileUse::read("one", at("a")), FileUse::read("two", at("a"))];
    assert!(check_distinct(&read_twice).is_ok());
    assert_eq!(
        written_and_read(Path::new("/dev/null"), Path::new("/dev/null")),
        Ok(())
    );
    let (reader, _writer) = io::pipe().unwrap();
    let pipe = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    assert_eq!(written_and_read(&pipe, &pipe), Ok(()));
}

#[test]
fn the_error_names_both_uses() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    symlink("a", at("soft")).unwrap();
    let name = |name: &str| at(name).display().to_string();
    assert_eq!(
        written_and_read(&at("a"), &at("a")).unwrap_err(),
        format!("the output and the input are the same file, {}", name("a"))
    );
    assert_eq!(
        written_and_read(&at("a"), &at("soft")).unwrap_err(),
        format!(
            "the output and the input are the same file under two names, {} and {}",
            name("a"),
            name("soft")
        )
    );
}
