//! Runs the job's command on a terminal, or on pipes, and relays its streams to the ports.

use crate::machine;
use anyhow::Context;
use lab_init::LabJob;
use lab_init::LabReport;
use lab_init::SentFile;
use lab_init::WORK_DIR;
use lab_init::port;
use lab_init::stdin;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitOptions;
use rustix::termios::Winsize;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;

/// Runs the command and waits for it. Returns the report, and the files to send with their lengths.
pub(crate) fn run(job: &LabJob) -> anyhow::Result<(LabReport, Vec<(u64, File)>)> {
    fs::create_dir_all(WORK_DIR).context("cannot create the work directory")?;
    let stdout = machine::open_port(port::STDOUT)?;
    let stderr = machine::open_port(port::STDERR)?;
    let stdin = if job.stdin {
        Some(machine::open_port(port::STDIN)?)
    } else {
        None
    };

    let started = match job.terminal {
        Some(size) => start_on_terminal(job, size, stdin, stdout),
        None => start_on_pipes(job, stdin, stdout, stderr),
    };
    let (status, relays) = match started {
        Ok((child, relays)) => (Ok(wait_for(&child)?), relays),
        Err(err) => (Err(format!("{err:#}")), Vec::new()),
    };
    // Processes that the command left behind would keep its output open.
    // kill(-1) means every process: this process's id is 1.
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
    let mut lengths = [0; 2];
    for (length, relay) in lengths.iter_mut().zip(relays) {
        *length = relay.join().unwrap_or(0);
    }

    let mut files = Vec::new();
    let mut contents = Vec::new();
    for name in &job.out {
        let path = std::path::Path::new(WORK_DIR).join(name);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let size = match opened {
            Ok((size, file)) => {
                contents.push((size, file));
                Ok(size)
            }
            Err(err) => Err(err.to_string()),
        };
        files.push(SentFile {
            name: name.clone(),
            size,
        });
    }
    let report = LabReport {
        status,
        stdout_len: lengths[0],
        stderr_len: lengths[1],
        files,
    };
    Ok((report, contents))
}

type StartedCommand = (Child, Vec<JoinHandle<u64>>);

fn command(job: &LabJob, prefix: &[&str]) -> anyhow::Result<Command> {
    let mut argv = prefix
        .iter()
        .copied()
        .chain(job.argv.iter().map(String::as_str));
    let mut command = Command::new(argv.next().context("the job has no command")?);
    command
        .args(argv)
        .env_clear()
        .envs(job.env.iter().map(|(k, v)| (k, v)))
        .current_dir(WORK_DIR);
    Ok(command)
}

fn start_on_pipes(
    job: &LabJob,
    stdin: Option<File>,
    stdout: File,
    stderr: File,
) -> anyhow::Result<StartedCommand> {
    let mut child = command(job, &[])?
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", job.argv[0]))?;
    if let (Some(from), Some(to)) = (stdin, child.stdin.take()) {
        // The thread is not joined: the input may never end.
        thread::spawn(move || stdin::receive(from, to));
    }
    let mut relays = Vec::new();
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        relays.push(relay(out, stdout));
        relays.push(relay(err, stderr));
    }
    Ok((child, relays))
}

fn start_on_terminal(
    job: &LabJob,
    size: (u16, u16),
    stdin: Option<File>,
    stdout: File,
) -> anyhow::Result<StartedCommand> {
    let controller: OwnedFd =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
    rustix::pty::unlockpt(&controller)?;
    let name = rustix::pty::ptsname(&controller, Vec::new())?;
    rustix::termios::tcsetwinsize(
        &controller,
        Winsize {
            ws_col: size.0,
            ws_row: size.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str()?)
        .context("cannot open the terminal")?;
    // setsid -c makes its standard input the controlling terminal.
    let child = command(job, &["/bin/busybox", "setsid", "-c"])?
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal)
        .spawn()
        .context("cannot run setsid")?;
    let controller = File::from(controller);
    if let Some(from) = stdin {
        let to = controller.try_clone()?;
        thread::spawn(move || stdin::receive(from, to));
    }
    Ok((child, vec![relay(controller, stdout)]))
}

/// Copies until end of file or an error (reading a terminal that no process has open is EIO). Returns the number of
/// bytes.
fn relay(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return total,
                Ok(n) => {
                    if to.write_all(&buffer[..n]).is_err() {
                        return total;
                    }
                    total += n as u64;
                }
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return total,
            }
        }
    })
}

/// Waits for the command, and reaps all other processes that end meanwhile, as an init process must.
fn wait_for(child: &Child) -> anyhow::Result<u8> {
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == child => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => continue,
                };
                return Ok(u8::try_from(code).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err).context("cannot wait for the command"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_counts_what_arrived() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let file = tempfile();
        let relay = relay(reader, file.try_clone().unwrap());
        writer.write_all(&[7; 100_000]).unwrap();
        drop(writer);
        assert_eq!(relay.join().unwrap(), 100_000);
        assert_eq!(file.metadata().unwrap().len(), 100_000);
    }

    fn tempfile() -> File {
        use rustix::fs::MemfdFlags;
        rustix::fs::memfd_create("relay", MemfdFlags::CLOEXEC)
            .unwrap()
            .into()
    }

    #[test]
    fn a_signal_reads_as_128_plus_its_number() {
        let mut child = Command::new("sh")
            .args(["-c", "kill -9 $$"])
            .spawn()
            .unwrap();
        assert_eq!(wait_for(&child).unwrap(), 128 + Signal::KILL.as_raw() as u8);
        assert!(child.wait().is_err(), "reaped already");
    }
}
