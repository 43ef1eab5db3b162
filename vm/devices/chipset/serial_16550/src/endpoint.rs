use crate::backend::Kind;
use crate::backend::Pty;
use crate::backend::SerialBackend;
use crate::backend::SocketListener;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A backend at work: what the pump waits for and what it reads and writes.
pub(crate) enum Endpoint {
    Sink(Sink),
    Socket {
        listener: SocketListener,
        client: Option<Client>,
    },
    Pty {
        pty: Pty,
        /// Somebody has the terminal open.
        open: bool,
    },
}

pub(crate) struct Sink {
    sink: Box<dyn Write + Send>,
    what: String,
    state: SinkState,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum SinkState {
    Works,
    /// The last write failed, and that was logged.
    Failing,
    /// It cannot work again.
    Broken,
}

pub(crate) struct Client {
    stream: UnixStream,
    /// It has sent all it is going to send.
    sent_all: bool,
}

/// What became of a write.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many bytes are gone.
    Bytes(usize),
    /// So many bytes are gone, and the backend did not get them.
    Failed(usize),
    /// The reader takes nothing at the moment.
    Stalled,
    /// The reader has gone.
    Gone,
}

/// What the wait for an endpoint brought.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing changed.
    None,
    /// A reader came.
    Came,
    /// There is input to read.
    Input,
    /// The reader has gone; input it left can still be read.
    Went,
}

/// How often to look whether somebody has opened a terminal: the kernel does not tell.
const OPEN_CHECK: Duration = Duration::from_millis(200);

/// How long to leave a client alone that cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Endpoint {
    pub(crate) fn new(backend: SerialBackend) -> Self {
        match backend.0 {
            Kind::Sink { sink, what } => Self::Sink(Sink {
                sink,
                what,
                state: SinkState::Works,
            }),
            Kind::Socket(listener) => Self::Socket {
                listener,
                client: None,
            },
            Kind::Pty(pty) => Self::Pty { pty, open: false },
        }
    }

    /// Whether somebody takes the output.
    pub(crate) fn is_present(&self) -> bool {
        match self {
            Self::Sink(_) => true,
            Self::Socket { client, .. } => client.is_some(),
            Self::Pty { open, .. } => *open,
        }
    }

    /// What to poll, with room for input or not, and with output to write to a reader that stalled.
    pub(crate) fn interest(&self, room: bool, stalled: bool) -> Option<PollFd<'_>> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, room);
        flags.set(PollFlags::OUT, stalled);
        match self {
            Self::Sink(_) | Self::Pty { open: false, .. } => None,
            Self::Socket {
                listener,
                client: None,
            } => Some(PollFd::new(&listener.listener, PollFlags::IN)),
            Self::Socket {
                client: Some(client),
                ..
            } => {
                flags.set(PollFlags::IN, room && !client.sent_all);
                Some(PollFd::new(&client.stream, flags))
            }
            Self::Pty { pty, open: true } => Some(PollFd::new(&pty.controller, flags)),
        }
    }

    /// How long to wait at most before looking again.
    pub(crate) fn patience(&self) -> Option<Duration> {
        matches!(self, Self::Pty { open: false, .. }).then_some(OPEN_CHECK)
    }

    /// Takes note of what a poll of [`Self::interest`] gave.
    pub(crate) fn polled(&mut self, events: PollFlags) -> Event {
        let gone = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
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
                    Event::Came
                } else {
                    Event::None
                }
            }
            Self::Socket {
                client: Some(_), ..
            }
            | Self::Pty { open: true, .. } => {
                if gone {
                    Event::Went
                } else if events.contains(PollFlags::IN) {
                    Event::Input
                } else {
                    Event::None
                }
            }
            Self::Pty { pty, open } => {
                let now = poll_now(pty.controller.as_fd());
                if !now.contains(PollFlags::HUP) {
                    *open = true;
                    Event::Came
                } else if now.contains(PollFlags::IN) {
                    // Opened, written to and closed again since the last look.
                    Event::Went
                } else {
                    Event::None
                }
            }
        }
    }

    /// Reads input. `None` when there is none at the moment or none will come.
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
            Self::Pty { pty, .. } => {
                let result = retry(|| rustix::io::read(&pty.controller, &mut *buffer));
                result.ok().filter(|count| *count != 0)
            }
        }
    }

    /// Writes output; does not wait, except for a sink.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Written {
        let result = match self {
            Self::Sink(sink) => return sink.write(bytes),
            Self::Socket { client: None, .. } | Self::Pty { open: false, .. } => {
                return Written::Gone;
            }
            Self::Socket {
                client: Some(client),
                ..
            } => retry(|| rustix::net::send(&client.stream, bytes, SendFlags::NOSIGNAL)),
            Self::Pty { pty, open: true } => retry(|| rustix::io::write(&pty.controller, bytes)),
        };
        match result {
            Ok(count) => Written::Bytes(count),
            Err(Errno::AGAIN) => Written::Stalled,
            Err(_) => Written::Gone,
        }
    }

    /// Gives up the reader that has gone.
    pub(crate) fn disconnect(&mut self) {
        match self {
            Self::Sink(_) => {}
            Self::Socket { client, .. } => *client = None,
            Self::Pty { open, .. } => *open = false,
        }
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> Written {
        if self.state == SinkState::Broken {
            return Written::Failed(bytes.len());
        }
        let result = self.sink.write_all(bytes);
        let Err(error) = result.and_then(|()| self.sink.flush()) else {
            self.state = SinkState::Works;
            return Written::Bytes(bytes.len());
        };
        if self.state == SinkState::Works {
            let (what, error) = (&self.what, &error as &dyn std::error::Error);
            tracing::warn!(what, error, "cannot write serial output, dropping it");
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
    let stream = match listener.listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) => {
            // A client that gave up before it was accepted, say. If the client still waits, because
            // there is no file descriptor for it, it is not to keep this thread busy.
            tracing::debug!(%error, "cannot accept a serial client");
            std::thread::sleep(ACCEPT_PAUSE);
            return None;
        }
    };
    if let Err(error) = stream.set_nonblocking(true) {
        tracing::warn!(%error, "cannot serve a serial client");
        return None;
    }
    Some(Client {
        stream,
        sent_all: false,
    })
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
