//! A disk whose file is larger than its process may write: RLIMIT_FSIZE, with SIGXFSZ ignored as `openvmm` does.
//!
//! The limit is one of the whole process, so the test runs itself as another one.
#![allow(clippy::unwrap_used, reason = "for tests")]

use disk_backend::DiskError;
use disk_backend::DiskOperation;
use disk_backend::exercise::Client;
use disk_file::Engine;
use disk_file::FileOptions;
use std::path::Path;
use std::process::Command;

const TEST: &str = "a_write_beyond_the_limit_fails_alone";
const VARIABLE: &str = "DISK_FILE_TEST_DISK";
const SIZE: usize = 1 << 20;

#[test]
fn a_write_beyond_the_limit_fails_alone() {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return write_with_limit(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::write(&path, vec![7; SIZE]).unwrap();
    // Units of 512 or 1024 bytes.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(VARIABLE, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("1 passed"), "{text}");
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len(), SIZE);
    assert_eq!(content[4096..4608], [2; 512]);
    assert!(content[128 << 10..].iter().all(|&byte| byte == 7));
}

fn write_with_limit(path: &Path) {
    for engine in [Engine::Auto, Engine::Threads] {
        let options = FileOptions {
            engine,
            ..Default::default()
        };
        let disk = disk_file::open(path, options).unwrap();
        let mut client = Client::new(disk);
        let result = client.write(512 << 10, &[1; 512]);
        assert!(
            matches!(&result, Err(DiskError::Io { source, .. }) if source.raw_os_error() == Some(libc::EFBIG)),
            "{result:?}"
        );
        // The disk goes on.
        client.write(4096, &[2; 512]).unwrap();
        client.run(DiskOperation::Flush).unwrap();
        assert_eq!(client.read(512 << 10, 512).unwrap(), [7; 512]);
    }
}
