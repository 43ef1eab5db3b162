use crate::SerialBackend;
use crate::SerialError;
use crate::SerialPort;
use crate::endpoint::Endpoint;
use crate::endpoint::Event;
use crate::endpoint::Written;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use std::time::Duration;
use std::time::Instant;

/// How long to collect output after the first byte.
const COLLECT: Duration = Duration::from_millis(1);

/// How long to collect output while it continues: at most 250 writes per second.
const COLLECT_MORE: Duration = Duration::from_millis(4);

/// How many bytes of input are kept of a client that disconnected.
const MAX_UNSENT_INPUT: usize = 1 << 20;

/// How long dropping a connection waits for its thread to end.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// A backend that is connected to a line. Dropping it disconnects it, after a last attempt to write the output.
pub struct SerialConnection {
    /// `None` once it is closed.
    port: Option<SerialPort>,
}

impl SerialPort {
    /// Runs `backend` at the host's end of the line, on a thread named after `name`.
    ///
    /// A line has one backend at a time. Output that is already in the line goes to the backend.
    pub fn connect(
        &self,
        name: &str,
        backend: SerialBackend,
    ) -> Result<SerialConnection, SerialError> {
        let attached = self.attach_pump();
        if !attached.map_err(|errno| SerialError::Thread(errno.into()))? {
            return Err(SerialError::Connected);
        }
        let SerialBackend(endpoint) = backend;
        // Set here and not on the thread, which may start late: until then output would be overwritten.
        self.set_reader(endpoint.is_connected());
        let pump = Pump {
            port: self.clone(),
            endpoint,
            unsent_input: Vec::new(),
            buffer: Vec::new(),
            collect_until: None,
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
                Err(SerialError::Thread(error))
            }
        }
    }
}

impl SerialConnection {
    /// Disconnects the backend and waits until its thread has ended, at most for `timeout`. Returns false if it has
    /// not, because it is blocked in a write.
    pub fn close(mut self, timeout: Duration) -> bool {
        self.port.take().is_none_or(|port| port.end_pump(timeout))
    }
}

impl Drop for SerialConnection {
    fn drop(&mut self) {
        if let Some(port) = self.port.take() {
            port.end_pump(DROP_TIMEOUT);
        }
    }
}

struct Pump {
    port: SerialPort,
    endpoint: Endpoint,
    /// Input that was read and for which the line has no room.
    unsent_input: Vec<u8>,
    buffer: Vec<u8>,
    collect_until: Option<Instant>,
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
            let wait = match (wait, self.endpoint.poll_interval()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let events = self.poll(room, wait);
            match self.endpoint.polled(events) {
                Event::None => {}
                Event::Connected => self.set_reader(true),
                Event::Input => self.read_input(),
                Event::Disconnected => self.disconnect(),
            }
            // After any event the next write finds out whether the reader still stalls.
            self.stalled &= events.is_empty();
        }
        self.write_rest();
        let Self { port, endpoint, .. } = self;
        // Dropped first, so that the backend is closed when `end_pump` returns.
        drop(endpoint);
        port.detach_pump();
    }

    /// Waits for an event of the endpoint, a signal of the line, or the timeout.
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
        // An interrupted wait is treated as a wake-up.
        let _ = rustix::event::poll(&mut fds, wait.as_ref());
        if !fds[0].revents().is_empty() {
            self.port.clear_pump_signal();
        }
        fds.get(1).map_or(PollFlags::empty(), PollFd::revents)
    }

    /// Sends input that waits for room. Returns whether there is room for more.
    fn feed_input(&mut self) -> bool {
        // If there is no room, `input_room` requests a signal for when there is.
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

    fn set_reader(&mut self, present: bool) {
        self.stalled = false;
        self.collect_until = None;
        self.port.set_reader(present);
    }

    /// Reads the remaining input of a reader that disconnected, and drops the reader.
    fn disconnect(&mut self) {
        let mut buffer = [0; 4096];
        while self.unsent_input.len() < MAX_UNSENT_INPUT {
            let Some(count) = self.endpoint.read(&mut buffer) else {
                break;
            };
            self.unsent_input.extend_from_slice(&buffer[..count]);
        }
        self.endpoint.disconnect();
        self.set_reader(false);
    }

    /// Writes output if it is due. Returns how long to wait until the next check.
    fn serve_output(&mut self, output: usize, flush: bool) -> Option<Duration> {
        if !self.endpoint.is_connected() || self.stalled {
            return None;
        }
        let now = Instant::now();
        if output == 0 && self.collect_until.is_none_or(|until| until <= now) {
            self.collect_until = None;
            if self.port.fall_asleep() {
                return None;
            }
        }
        let until = *self.collect_until.get_or_insert(now + COLLECT);
        let due = flush || output >= SerialPort::HALF || until <= now;
        if output == 0 || !due {
            return Some(until.saturating_duration_since(now));
        }
        self.write_output();
        self.collect_until = Some(now + COLLECT_MORE);
        Some(COLLECT_MORE)
    }

    fn write_output(&mut self) -> Written {
        self.port.peek_output(&mut self.buffer);
        let written = self.endpoint.write(&self.buffer);
        match written {
            Written::Bytes(count) => self.port.consume_output(count, false),
            Written::Failed(count) => self.port.consume_output(count, true),
            Written::Stalled => self.stalled = true,
            Written::Disconnected => self.disconnect(),
        }
        written
    }

    /// Writes the output that a reader accepts without waiting.
    fn write_rest(&mut self) {
        while self.port.work().output != 0 {
            match self.write_output() {
                Written::Bytes(1..) | Written::Failed(1..) => {}
                _ => break,
            }
        }
    }
}

#[cfg(test)]
#[path = "pump_test.rs"]
mod tests;
