use crate::SerialBackend;
use crate::SerialPort;
use crate::endpoint::Endpoint;
use crate::endpoint::Event;
use crate::endpoint::Written;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use std::io;
use std::time::Duration;
use std::time::Instant;

/// How long to wait for more output after the first byte.
const GATHER: Duration = Duration::from_millis(1);

/// How long to gather output while it keeps coming: a flood costs 250 wake-ups per second.
const GATHER_MORE: Duration = Duration::from_millis(4);

/// How much input a client may leave behind when it goes.
const LEFT_INPUT: usize = 1 << 20;

/// How long the drop of a connection waits for output to go out.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a backend cannot be connected to a line.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The line has a backend.
    #[error("the serial port is connected already")]
    Connected,
    /// The kernel refused a resource.
    #[error("cannot start the serial port's thread")]
    Thread(#[source] io::Error),
}

/// A backend at work on a line. Dropping it ends it, after a last attempt to write the output out.
#[derive(Debug)]
pub struct SerialConnection {
    /// Taken when it is closed.
    port: Option<SerialPort>,
}

impl SerialPort {
    /// Runs `backend` at the host's end of the line, on a thread named after `name`.
    ///
    /// A line has one backend at a time. Output that the line holds from before goes to the backend.
    pub fn connect(
        &self,
        name: &str,
        backend: SerialBackend,
    ) -> Result<SerialConnection, ConnectError> {
        let attached = self.attach_pump();
        if !attached.map_err(|errno| ConnectError::Thread(errno.into()))? {
            return Err(ConnectError::Connected);
        }
        let endpoint = Endpoint::new(backend);
        // Before the guest runs: it must not take a reader for absent that is only slow to start.
        self.set_reader(endpoint.is_present());
        let pump = Pump {
            port: self.clone(),
            endpoint,
            unsent_input: Vec::new(),
            buffer: Vec::new(),
            gather_until: None,
            stalled: false,
        };
        let spawned = std::thread::Builder::new()
            .name(format!("serial-{name}"))
            .spawn(move || pump.run());
        match spawned {
            Ok(_) => Ok(SerialConnection {
                port: Some(self.clone()),
            }),
            Err(error) => {
                self.detach_pump();
                Err(ConnectError::Thread(error))
            }
        }
    }
}

impl SerialConnection {
    /// Ends the connection and waits until its thread has ended, at most for `timeout`. False if it has
    /// not: it is stuck in a write, and is left to itself.
    pub fn close(mut self, timeout: Duration) -> bool {
        self.port.take().is_none_or(|port| port.end_pump(timeout))
    }
}

impl Drop for SerialConnection {
    fn drop(&mut self) {
        if let Some(port) = self.port.take() {
            port.end_pump(CLOSE_PATIENCE);
        }
    }
}

struct Pump {
    port: SerialPort,
    endpoint: Endpoint,
    /// Input that was read and did not fit.
    unsent_input: Vec<u8>,
    buffer: Vec<u8>,
    gather_until: Option<Instant>,
    stalled: bool,
}

impl Pump {
    fn run(mut self) {
        loop {
            let work = self.port.work();
            if work.end {
                break;
            }
            let room = self.feed_input();
            let wait = self.serve_output(work.output, work.flush);
            let wait = match (wait, self.endpoint.patience()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let events = self.poll(room, wait);
            match self.endpoint.polled(events) {
                Event::None => {}
                Event::Came => self.reader_changed(true),
                Event::Input => self.read_input(),
                Event::Went => self.reader_went(),
            }
            // A reader that takes output again, or a poll that failed: the next write tells.
            self.stalled &= events.is_empty();
        }
        self.write_rest();
        let Self { port, endpoint, .. } = self;
        // First, so that whoever waits for the end finds the backend closed.
        drop(endpoint);
        port.detach_pump();
    }

    /// Waits for the endpoint, the line, or the time.
    fn poll(&self, room: bool, wait: Option<Duration>) -> PollFlags {
        let Some(signal) = self.port.pump_signal() else {
            return PollFlags::empty();
        };
        let signal = PollFd::from_borrowed_fd(signal, PollFlags::IN);
        let mut fds = vec![signal];
        fds.extend(self.endpoint.interest(room, self.stalled));
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        // Interrupted is as good as woken.
        let _ = rustix::event::poll(&mut fds, wait.as_ref());
        if !fds[0].revents().is_empty() {
            self.port.clear_pump_signal();
        }
        fds.get(1).map_or(PollFlags::empty(), PollFd::revents)
    }

    /// Hands on input that waits for room. Whether there is room for more.
    fn feed_input(&mut self) -> bool {
        // Asked first: if there is none, a signal follows when there is.
        while self.port.input_room() != 0 {
            if self.unsent_input.is_empty() {
                return true;
            }
            let taken = self.port.write_input(&self.unsent_input);
            self.unsent_input.drain(..taken);
        }
        false
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        if let Some(count) = self.endpoint.read(&mut buffer) {
            self.unsent_input.extend_from_slice(&buffer[..count]);
        }
    }

    fn reader_changed(&mut self, present: bool) {
        self.stalled = false;
        self.gather_until = None;
        self.port.set_reader(present);
    }

    fn reader_went(&mut self) {
        let mut buffer = [0; 4096];
        while self.unsent_input.len() < LEFT_INPUT {
            let Some(count) = self.endpoint.read(&mut buffer) else {
                break;
            };
            self.unsent_input.extend_from_slice(&buffer[..count]);
        }
        self.endpoint.disconnect();
        self.reader_changed(false);
    }

    /// Writes output if it is time. How long to wait before looking again.
    fn serve_output(&mut self, output: usize, flush: bool) -> Option<Duration> {
        if !self.endpoint.is_present() || self.stalled {
            return None;
        }
        let now = Instant::now();
        if output == 0 && self.gather_until.is_none_or(|until| until <= now) {
            self.gather_until = None;
            if self.port.fall_asleep() {
                return None;
            }
        }
        let until = *self.gather_until.get_or_insert(now + GATHER);
        let due = flush || output >= SerialPort::HALF || until <= now;
        if output == 0 || !due {
            return Some(until.saturating_duration_since(now));
        }
        self.write_output();
        self.gather_until = Some(now + GATHER_MORE);
        Some(GATHER_MORE)
    }

    fn write_output(&mut self) -> Written {
        self.port.peek_output(&mut self.buffer);
        let written = self.endpoint.write(&self.buffer);
        match written {
            Written::Bytes(count) => self.port.consume_output(count, false),
            Written::Failed(count) => self.port.consume_output(count, true),
            Written::Stalled => self.stalled = true,
            Written::Gone => self.reader_went(),
        }
        written
    }

    /// Writes what can be written without waiting for a reader.
    fn write_rest(&mut self) {
        while self.port.work().output != 0 {
            match self.write_output() {
                Written::Bytes(1..) | Written::Failed(1..) => {}
                _ => break,
            }
        }
    }
}
