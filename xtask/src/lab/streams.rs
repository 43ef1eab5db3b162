//! The host's end of the virtio-serial ports.

use super::job::OutFile;
use anyhow::Context;
use lab_init::LabReport;
use lab_init::stdin;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// The longest report line to accept.
const REPORT_LIMIT: u64 = 1 << 20;

/// The interval of the pulse, which is how long a lost interrupt can stay lost. A pulse costs the lab some 100 µs.
const PULSE: Duration = Duration::from_millis(100);

/// What happened on the ports, or to this process.
pub(super) enum LabEvent {
    /// This many bytes of the command's standard output were forwarded.
    Stdout(u64),
    /// This many bytes of its standard error were forwarded.
    Stderr(u64),
    /// The command ended, and its files have arrived.
    Report(LabReport),
    /// The report port closed or failed.
    NoReport(anyhow::Error),
    /// This process got a signal.
    Signal(i32),
}

/// Copies an output port to `to`, and sends events with the number of bytes.
pub(super) fn forward(
    mut from: UnixStream,
    mut to: Box<dyn Write + Send>,
    events: Sender<LabEvent>,
    event: fn(u64) -> LabEvent,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut writable = true;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    // Even if the reader is gone, the report must be received.
                    writable = writable && to.write_all(&buffer[..n]).is_ok() && to.flush().is_ok();
                    if events.send(event(n as u64)).is_err() {
                        return;
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

/// Sends the command's input to its port, in the chunks that [`lab_init::stdin`] describes.
pub(super) fn forward_input(input: Box<dyn Read + Send>, port: UnixStream) {
    thread::spawn(move || stdin::send(input, port));
}

/// Interrupts the lab's machine every [`PULSE`] until it ends.
pub(super) fn pulse(mut port: UnixStream) {
    thread::spawn(move || {
        while port.write_all(&[0]).is_ok() {
            thread::sleep(PULSE);
        }
    });
}

/// Receives the report and stores the files that follow it.
pub(super) fn receive_report(port: UnixStream, outputs: Vec<OutFile>, events: Sender<LabEvent>) {
    thread::spawn(move || {
        let event = match report(port, &outputs) {
            Ok(report) => LabEvent::Report(report),
            Err(err) => LabEvent::NoReport(err),
        };
        let _ = events.send(event);
    });
}

fn report(port: impl Read, outputs: &[OutFile]) -> anyhow::Result<LabReport> {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    port.by_ref()
        .take(REPORT_LIMIT)
        .read_until(b'\n', &mut line)?;
    anyhow::ensure!(!line.is_empty(), "the lab's machine ended without a report");
    let report: LabReport =
        serde_json::from_slice(&line).context("the lab's report is malformed")?;
    for file in &report.files {
        let Ok(size) = file.size else {
            continue;
        };
        let target = outputs
            .iter()
            .find(|out| out.name == file.name)
            .map(|out| &out.target)
            .with_context(|| format!("the lab sent {}, which was not requested", file.name))?;
        let mut out =
            File::create(target).with_context(|| format!("cannot create {}", target.display()))?;
        let copied = io::copy(&mut port.by_ref().take(size), &mut out)
            .with_context(|| format!("cannot write {}", target.display()))?;
        anyhow::ensure!(copied == size, "{} arrived incomplete", file.name);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_the_report_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let out = |name: &str| OutFile {
            name: name.to_owned(),
            target: dir.path().join(name),
        };
        let sent = LabReport {
            status: Ok(3),
            stdout_len: 0,
            stderr_len: 0,
            files: [("a", Ok(2)), ("gone", Err("no".to_owned())), ("b", Ok(3))]
                .map(|(name, size)| lab_init::SentFile {
                    name: name.to_owned(),
                    size,
                })
                .to_vec(),
        };
        let mut bytes = serde_json::to_vec(&sent).unwrap();
        bytes.extend(b"\naabbb");
        let outputs = ["a", "b", "gone"].map(out);
        assert_eq!(report(&bytes[..], &outputs).unwrap(), sent);
        let read = |name| std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!((read("a"), read("b")), (b"aa".to_vec(), b"bbb".to_vec()));
        assert!(!dir.path().join("gone").exists());

        assert!(report(&bytes[..bytes.len() - 1], &outputs).is_err());
        assert!(report(&b""[..], &outputs).is_err());
    }
}
