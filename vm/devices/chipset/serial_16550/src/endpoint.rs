use crate::backend::SocketListener;
use log_limit::LogLimit;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::io::Write;
use std::time::Duration;

/// The host's end of a line: polled, read and written by the pump.
pub(crate) enum Endpoint {
    Sink(Sink),
    Socket {
        listener: SocketListener,
        client: Option<Client>,
    },
    Pty {
        /// The controlling side.
        controller: OwnedFd,
        /// Whether a process has the terminal open.
        open: bool,
    },
}

pub(crate) struct Sink {
    sink: Box<dyn Write + Send>,
    what: String,
    state: SinkState,
    failures: LogLimit,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum SinkState {
    Working,
    /// The last write failed.
    Failing,
    /// All further writes will fail.
    Broken,
}

pub(crate) struct Client {
    stream: OwnedFd,
    /// The client has shut down its sending side.
    sent_all: bool,
}

/// The result of a write.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// The backend has written this many bytes.
    Bytes(usize),
    /// The backend failed to write this many bytes, which are dropped.
    Failed(usize),
    /// The reader does not accept bytes at the moment.
    Stalled,
    /// There is no reader.
    Disconnected,
}

/// The result of polling an endpoint.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing changed.
    None,
    /// A reader connected.
    Connected,
    /// There is input to read.
    Input,
    /// The reader disconnected; input that it sent can still be read.
    Disconnected,
}

/// How often to check whether a process has opened a terminal, for which there is no event.
const OPEN_CHECK: Duration = Duration::from_millis(200);

/// The pause after a failure to accept a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Endpoint {
    /// Whether there is a reader for the output.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Sink(_) => true,
            Self::Socket { client, .. } => client.is_some(),
            Self::Pty { open, .. } => *open,
        }
    }

    /// What to poll. `room` says whether there is room for input, `stalled` whether output waits for the reader.
    pub(crate) fn interest(&self, room: bool, stalled: bool) -> Option<PollFd<'_>> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, room);
        flags.set(PollFlags::OUT, stalled);
        match self {
            Self::Sink(_) | Self::Pty { open: false, .. } => None,
            Self::Socket {
                listener,
                client: None,
            } => Some(PollFd::new(listener, PollFlags::IN)),
            Self::Socket {
                client: Some(client),
                listener,
            } => {
                flags.set(PollFlags::IN, room && !client.sent_all);
                // Of TCP, the end of the client's input is all that shows that it is gone.
                flags.set(PollFlags::RDHUP, matches!(listener, SocketListener::Tcp(_)));
                Some(PollFd::new(&client.stream, flags))
            }
            Self::Pty {
                controller,
                open: true,
            } => Some(PollFd::new(controller, flags)),
        }
    }

    /// The longest time until the next poll.
    pub(crate) fn poll_interval(&self) -> Option<Duration> {
        matches!(self, Self::Pty { open: false, .. }).then_some(OPEN_CHECK)
    }

    /// Handles the events that a poll of [`Self::interest`] returned.
    pub(crate) fn polled(&mut self, events: PollFlags) -> Event {
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR | PollFlags::NVAL;
        let hung_up = events.intersects(gone);
        match self {
            Self::Sink(_) => Event::None,
            Self::Socket {
                listener,
                client: client @ None,
            } => {
                if events.is_empty() {
                    return Event::None;
                }
                *client = accept(listener);
                if client.is_some() {
                    Event::Connected
                } else {
                    Event::None
                }
            }
            Self::Socket {
                client: Some(_), ..
            }
            | Self::Pty { open: true, .. } => {
                if hung_up {
                    Event::Disconnected
                } else if events.contains(PollFlags::IN) {
                    Event::Input
                } else {
                    Event::None
                }
            }
            Self::Pty { controller, open } => {
                let now = poll_now(controller.as_fd());
                if !now.contains(PollFlags::HUP) {
                    *open = true;
                    Event::Connected
                } else if now.contains(PollFlags::IN) {
                    // Opened, written to and closed since the last poll.
                    Event::Disconnected
                } else {
                    Event::None
                }
            }
        }
    }

    /// Reads input. Returns `None` if there is none.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::Sink(_) | Self::Socket { client: None, .. } => None,
            Self::Socket {
                client: Some(client),
                ..
            } => match retry(|| rustix::io::read(&client.stream, &mut *buffer)) {
                Ok(0) => {
                    client.sent_all = true;
                    None
                }
                result => result.ok(),
            },
            Self::Pty { controller, .. } => {
                let result = retry(|| rustix::io::read(&*controller, &mut *buffer));
                result.ok().filter(|count| *count != 0)
            }
        }
    }

    /// Writes output. Does not block, except for a sink.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Written {
        let result = match self {
            Self::Sink(sink) => return sink.write(bytes),
            Self::Socket { client: None, .. } | Self::Pty { open: false, .. } => {
                return Written::Disconnected;
            }
            Self::Socket {
                client: Some(client),
                ..
            } => retry(|| rustix::net::send(&client.stream, bytes, SendFlags::NOSIGNAL)),
            Self::Pty {
                controller,
                open: true,
            } => retry(|| rustix::io::write(&*controller, bytes)),
        };
        match result {
            Ok(count) => Written::Bytes(count),
            Err(Errno::AGAIN) => Written::Stalled,
            Err(_) => Written::Disconnected,
        }
    }

    /// Drops a reader that disconnected.
    pub(crate) fn disconnect(&mut self) {
        match self {
            Self::Sink(_) => {}
            Self::Socket { client, .. } => *client = None,
            Self::Pty { open, .. } => *open = false,
        }
    }
}

impl Sink {
    pub(crate) fn new(sink: Box<dyn Write + Send>, what: String) -> Self {
        Self {
            sink,
            what,
            state: SinkState::Working,
            failures: LogLimit::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Written {
        if self.state == SinkState::Broken {
            return Written::Failed(bytes.len());
        }
        let result = self.sink.write_all(bytes);
        let Err(error) = result.and_then(|()| self.sink.flush()) else {
            self.state = SinkState::Working;
            return Written::Bytes(bytes.len());
        };
        if self.state == SinkState::Working
            && let Some(suppressed) = self.failures.allow()
        {
            let (what, error) = (&self.what, &error as &dyn std::error::Error);
            tracing::warn!(
                what,
                error,
                suppressed,
                "cannot write serial output, dropping it"
            );
        }
        let broken = error.kind() == std::io::ErrorKind::BrokenPipe
            || error.raw_os_error() == Some(Errno::BADF.raw_os_error());
        self.state = if broken {
            SinkState::Broken
        } else {
            SinkState::Failing
        };
        Written::Failed(bytes.len())
    }
}

fn accept(listener: &SocketListener) -> Option<Client> {
    match listener.accept() {
        Ok(stream) => Some(Client {
            stream,
            sent_all: false,
        }),
        Err(error) => {
            // For example, the client has disconnected. If it still waits, because the process is out of file
            // descriptors, the pause keeps this thread from spinning.
            tracing::debug!(%error, "cannot accept a serial client");
            std::thread::sleep(ACCEPT_PAUSE);
            None
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn poll_now(fd: BorrowedFd<'_>) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&zero)) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::HUP,
    }
}
