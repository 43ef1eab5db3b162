//! The host's end of the virtio-serial ports.

use super::job::OutFile;
use anyhow::Context;
use lab_init::Report;
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

/// How long a lost interrupt may stay lost. A pulse keeps the lab busy for some 100 µs.
const PULSE: Duration = Duration::from_millis(100);

/// What the ports have to say.
pub(super) enum Event {
    /// So many more bytes of the command's standard output have been passed on.
    Stdout(u64),
    /// The same for its standard error.
    Stderr(u64),
    /// The command ended, and its files have arrived.
    Report(Report),
    /// The report port closed or failed.
    NoReport(anyhow::Error),
    /// This process got a signal.
    Signal(i32),
}

/// Copies an output port to `to`, telling how many bytes went through.
pub(super) fn forward(
    mut from: UnixStream,
    mut to: Box<dyn Write + Send>,
    events: Sender<Event>,
    event: fn(u64) -> Event,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut writable = true;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    // A reader that went away is no reason to lose the report.
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

/// Sends our standard input to its port, in the chunks that [`lab_init::stdin`] describes.
pub(super) fn forward_stdin(port: UnixStream) {
    thread::spawn(move || stdin::send(io::stdin().lock(), port));
}

/// Has the lab's machine interrupted every [`PULSE`], until it is gone.
pub(super) fn pulse(mut port: UnixStream) {
    thread::spawn(move || {
        while port.write_all(&[0]).is_ok() {
            thread::sleep(PULSE);
        }
    });
}

/// Waits for the report and stores the files that follow it.
pub(super) fn receive_report(port: UnixStream, outputs: Vec<OutFile>, events: Sender<Event>) {
    thread::spawn(move || {
        let event = match report(port, &outputs) {
            Ok(report) => Event::Report(report),
            Err(err) => Event::NoReport(err),
        };
        let _ = events.send(event);
    });
}

fn report(port: impl Read, outputs: &[OutFile]) -> anyhow::Result<Report> {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    port.by_ref()
        .take(REPORT_LIMIT)
        .read_until(b'\n', &mut line)?;
    anyhow::ensure!(!line.is_empty(), "the lab's machine ended without a report");
    let report: Report = serde_json::from_slice(&line).context("the lab's report is malformed")?;
    for file in &report.files {
        let Ok(size) = file.size else {
            continue;
        };
        let target = outputs
            .iter()
            .find(|out| out.name == file.name)
            .map(|out| &out.target)
            .with_context(|| format!("the lab sent {}, which nobody asked for", file.name))?;
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
        let sent = Report {
            status: Ok(3),
            stdout_len: 0,
            stderr_len: 0,
            files: [("a", Ok(2)), ("gone", Err("no".to_owned())), ("b", Ok(3))]
                .map(|(name, size)| lab_init::OutFile {
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
