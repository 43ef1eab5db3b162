//! Counts tests by the output of the test programs.

use crate::process;
use anyhow::Context;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::ops::Add;
use std::ops::AddAssign;
use std::process::Command;
use std::process::Stdio;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Count {
    /// One failure.
    pub(super) const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    /// One test.
    pub(super) fn of(passed: bool) -> Self {
        if passed {
            Self {
                passed: 1,
                ..Self::default()
            }
        } else {
            Self::FAILED
        }
    }

    /// Parses a test program's result line: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let results = line.trim().strip_prefix("test result: ")?;
        let (_, numbers) = results.split_once(". ")?;
        let number = |what: &str| {
            numbers
                .split("; ")
                .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored").unwrap_or(0),
        })
    }

    /// Adds a failure if the exit status is one and no result line counted any: a test program that crashed or could
    /// not be built.
    pub(super) fn with_status(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Forwards lines, and adds up the result lines among them.
pub(super) struct CountingWriter<W> {
    out: W,
    line: Vec<u8>,
    pub(super) count: Count,
}

impl<W> CountingWriter<W> {
    /// Creates a writer that forwards to `out`.
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            line: Vec::new(),
            count: Count::default(),
        }
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            if let Some(count) = Count::of_line(&String::from_utf8_lossy(&self.line)) {
                self.count += count;
            }
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Runs a command that runs test programs. Their output goes to `out`.
pub(super) fn of_command(command: &mut Command, out: impl Write) -> anyhow::Result<Count> {
    let shown = process::shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let mut counter = CountingWriter::new(out);
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? != 0 {
            counter.write_all(&line)?;
            line.clear();
        }
    }
    let status = child.wait()?;
    Ok(counter.count.with_status(status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut counter = CountingWriter::new(io::sink());
        let output = "running 4 tests\ntest a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            \n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        counter.write_all(output.as_bytes()).unwrap();
        let expected = Count {
            passed: 4,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(counter.count, expected);
    }

    #[test]
    fn a_crash_is_a_failure() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 3 passed; 0 failed'; kill -6 $$",
        ]);
        let count = of_command(&mut command, io::sink()).unwrap();
        assert_eq!((count.passed, count.failed), (3, 1));
    }
}
