use crate::endpoint::Endpoint;
use crate::endpoint::Sink;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use rustix::fd::BorrowedFd;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::pty::OpenptFlags;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

/// The host's end of a serial line.
pub struct SerialBackend(pub(crate) Endpoint);

/// A listening socket.
pub(crate) enum SocketListener {
    /// Its file is removed when it is dropped.
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Tcp(TcpListener),
}

impl SocketListener {
    /// Accepts a client, without waiting for one. Reads and writes of the client do not wait either.
    pub(crate) fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = rustix::net::accept_with(self, flags)?;
        if let Self::Tcp(_) = self {
            // Each write is what the guest sent until then; more may follow a long time later.
            rustix::net::sockopt::set_tcp_nodelay(&client, true)?;
        }
        Ok(client)
    }
}

impl AsFd for SocketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Why a serial line cannot be connected to the host.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The output file cannot be created.
    #[error("cannot create the serial output file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process cannot listen on the socket.
    #[error("cannot listen on the serial socket {}", path.display())]
    Socket {
        /// The socket's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process cannot listen on the TCP port.
    #[error("cannot listen on the TCP address {address} for a serial port")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No pseudo-terminal can be allocated.
    #[error("cannot allocate a pseudo-terminal")]
    Pty(#[source] io::Error),
    /// The line already has a backend.
    #[error("the serial port already has a backend")]
    Connected,
    /// The host is out of threads or file descriptors.
    #[error("cannot start the serial port's thread")]
    Thread(#[source] io::Error),
}

impl SerialBackend {
    /// Writes output to a file, which is created or truncated; or to a character device, or a named pipe that a process
    /// reads.
    pub fn file(path: &Path) -> Result<Self, SerialError> {
        let file = host_file::open_output(path).map_err(|source| SerialError::File {
            path: path.into(),
            source,
        })?;
        Ok(Self::writer(file, path.display().to_string()))
    }

    /// A Unix socket that listens at `path`. It serves one client at a time. A socket file on which no process
    /// listens is replaced.
    pub fn unix_listener(path: &Path) -> Result<Self, SerialError> {
        let listener = listen(path).map_err(|source| SerialError::Socket {
            path: path.into(),
            source,
        })?;
        let path = path.into();
        Ok(Self(Endpoint::Socket {
            listener: SocketListener::Unix { listener, path },
            client: None,
        }))
    }

    /// A TCP socket that listens at `address`. It serves one client at a time. Also returns the address with the port
    /// that the host chose, if it was to choose one (port 0).
    pub fn tcp_listener(address: SocketAddr) -> Result<(Self, SocketAddr), SerialError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, bound) = listen().map_err(|source| SerialError::Tcp { address, source })?;
        let endpoint = Endpoint::Socket {
            listener: SocketListener::Tcp(listener),
            client: None,
        };
        Ok((Self(endpoint), bound))
    }

    /// A new pseudo-terminal in raw mode. Also returns the path at which programs open it.
    pub fn pty() -> Result<(Self, PathBuf), SerialError> {
        let open = || -> rustix::io::Result<_> {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let controller = rustix::pty::openpt(flags)?;
            rustix::pty::grantpt(&controller)?;
            rustix::pty::unlockpt(&controller)?;
            let path = rustix::pty::ptsname(&controller, Vec::new())?;
            // Open it and close it once: from then on the kernel reports whether a process has it open.
            let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
            let mut termios = rustix::termios::tcgetattr(&terminal)?;
            termios.make_raw();
            let now = rustix::termios::OptionalActions::Now;
            rustix::termios::tcsetattr(&terminal, now, &termios)?;
            rustix::io::ioctl_fionbio(&controller, true)?;
            Ok((controller, path))
        };
        let (controller, path) = open().map_err(|errno| SerialError::Pty(errno.into()))?;
        let path = PathBuf::from(String::from_utf8_lossy(path.as_bytes()).into_owned());
        let open = false;
        Ok((Self(Endpoint::Pty { controller, open }), path))
    }

    /// Writes output to the standard output of the process. If that is closed, the output is dropped.
    pub fn stdout() -> Self {
        Self::writer(Standard::Output, "standard output".into())
    }

    /// Writes output to the standard error of the process. If that is closed, the output is dropped.
    pub fn stderr() -> Self {
        Self::writer(Standard::Error, "standard error".into())
    }

    /// Writes output to `sink`, on the thread of the connection. A sink that blocks makes the guest wait.
    /// Send input with [`crate::SerialPort::write_input`].
    pub fn sink(sink: impl Write + Send + 'static) -> Self {
        Self::writer(sink, "sink".into())
    }

    fn writer(sink: impl Write + Send + 'static, what: String) -> Self {
        Self(Endpoint::Sink(Sink::new(Box::new(sink), what)))
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether `path` is a socket on which no process listens.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // It may have been removed already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A standard stream of the process, without the buffer and the lock of `std`.
enum Standard {
    Output,
    Error,
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fd = match self {
            Self::Output => rustix::stdio::stdout(),
            Self::Error => rustix::stdio::stderr(),
        };
        loop {
            match rustix::io::write(fd, bytes) {
                // A process that shares the stream has made it non-blocking.
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
                    match rustix::event::poll(&mut fds, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
