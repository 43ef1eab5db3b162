//! Running the tool in a temporary directory.
#![allow(dead_code, reason = "not every test needs all of it")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use vmgs::Container;
use vmgs::FileDevice;
use vmgs::OpenOptions;
use vmgs::StoreAccess;
use vmgs::Vmgs;

/// A temporary directory in which the tool runs.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs the tool in the directory, with arguments separated by spaces.
    pub(crate) fn run(&self, args: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vmgstool"))
            .args(args.split(' '))
            .current_dir(self.0.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn code(&self, args: &str) -> i32 {
        self.run(args).status.code().unwrap()
    }

    /// Runs the tool, which must succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &str) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    pub(crate) fn store(&self, name: &str) -> Vmgs {
        let device =
            FileDevice::open(&self.path(name), Container::Vhd1, StoreAccess::ReadWrite).unwrap();
        Vmgs::open(Box::new(device), OpenOptions::default()).unwrap()
    }

    /// Names of all files in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
