//! The control socket: requests and replies in JSON, one a line.

use crate::console::select;
use crate::control::VmControl;
use openvmm_defs::request::Change;
use openvmm_defs::request::SaveSnapshot;
use openvmm_defs::request::VmRequest;
use rustix::fs::Mode;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// The longest request in bytes.
const MAX_REQUEST: u64 = 64 << 10;

/// Clients at a time. Further ones are disconnected.
const MAX_CLIENTS: usize = 16;

/// Connections that the host holds until they are accepted.
const BACKLOG: i32 = 16;

/// A socket that listens.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: ControlPath,
}

/// Ends the VM as the console's `quit` does.
pub(crate) type Quit = Arc<dyn Fn() + Send + Sync>;

/// A request.
#[derive(Debug, Deserialize)]
struct Request {
    /// Is repeated in the reply.
    #[serde(default)]
    id: Value,
    #[serde(flatten)]
    command: Command,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
enum Command {
    Status,
    Pause,
    Resume,
    Reset,
    Shutdown,
    SaveSnapshot {
        dir: PathBuf,
    },
    Inspect {
        #[serde(default)]
        path: String,
    },
    Quit,
}

impl ControlSocket {
    /// Listens at `path`, for this user only. A socket that nobody listens at any more is replaced.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let is_socket = path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket
            && UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path)?;
        }
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // Linux gives the name the mode that the socket has when it is bound.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self {
            listener: socket.into(),
            // Another directory may be current when it is removed.
            path: ControlPath(std::path::absolute(path)?),
        })
    }

    /// Serves clients, each on a thread of its own, until the process ends. Returns the socket's name.
    pub(crate) fn serve(self, control: VmControl, quit: Quit) -> io::Result<ControlPath> {
        let Self { listener, path } = self;
        let clients = Arc::new(AtomicUsize::new(0));
        let accept = move || {
            for stream in listener.incoming() {
                let stream = match stream {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a client of the control socket cannot be accepted");
                        std::thread::sleep(std::time::Duration::from_millis(100));
                        continue;
                    }
                };
                if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
                    clients.fetch_sub(1, Ordering::SeqCst);
                    tracing::debug!("the control socket has too many clients");
                    continue;
                }
                let (control, quit, served) = (control.clone(), quit.clone(), clients.clone());
                let serve = move || {
                    if let Err(error) = serve(&stream, &control, &quit) {
                        tracing::debug!(%error, "a client of the control socket is gone");
                    }
                    served.fetch_sub(1, Ordering::SeqCst);
                };
                let thread = std::thread::Builder::new().name("control-client".into());
                if let Err(error) = thread.spawn(serve) {
                    clients.fetch_sub(1, Ordering::SeqCst);
                    tracing::warn!(%error, "a client of the control socket cannot be served");
                }
            }
        };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(accept)?;
        Ok(path)
    }
}

/// The name of a socket that listens. It is removed when this is dropped; a process that exits has to do that before.
pub(crate) struct ControlPath(PathBuf);

impl Drop for ControlPath {
    fn drop(&mut self) {
        self.remove();
    }
}

impl ControlPath {
    /// Removes the name.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "the control socket's name cannot be removed");
        }
    }
}

/// Answers one client's requests, in their order, until it closes the connection.
fn serve(stream: &UnixStream, control: &VmControl, quit: &Quit) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = reader
            .by_ref()
            .take(MAX_REQUEST)
            .read_until(b'\n', &mut line)?;
        if len == 0 {
            return Ok(());
        }
        let complete = line.ends_with(b"\n") || (len as u64) < MAX_REQUEST;
        let reply = match complete {
            true => answer(&line, control, quit),
            false => {
                json!({"id": null, "error": format!("a request has at most {MAX_REQUEST} bytes")})
            }
        };
        let mut text = reply.to_string();
        text.push('\n');
        (&mut &*stream).write_all(text.as_bytes())?;
        if !complete {
            return Ok(());
        }
    }
}

fn answer(line: &[u8], control: &VmControl, quit: &Quit) -> Value {
    let Request { id, command } = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return json!({"id": null, "error": format!("not a request: {error}")}),
    };
    match execute(command, control, quit) {
        Ok(result) => json!({"id": id, "result": result}),
        Err(error) => json!({"id": id, "error": error}),
    }
}

fn execute(command: Command, control: &VmControl, quit: &Quit) -> Result<Value, String> {
    let changed = |change| json!({"changed": change == Change::Changed});
    Ok(match command {
        Command::Status => control.inspect()?["vm"].take(),
        Command::Pause => changed(control.try_call(VmRequest::Pause)?),
        Command::Resume => changed(control.try_call(VmRequest::Resume)?),
        Command::Reset => {
            control.try_call(VmRequest::Reset)?;
            json!({})
        }
        Command::Shutdown => {
            control.try_call(VmRequest::PowerButton)?;
            json!({})
        }
        Command::SaveSnapshot { dir } => {
            let dir = std::path::absolute(dir).map_err(|error| error.to_string())?;
            let saved = control.try_request(VmRequest::SaveSnapshot, SaveSnapshot { dir })?;
            json!({
                "memory_bytes": saved.memory,
                "stored_bytes": saved.stored,
                "paused_ms": saved.paused_ms,
            })
        }
        Command::Inspect { path } => {
            let tree = control.inspect()?;
            let found = select(&tree, &path);
            found.ok_or_else(|| format!("nothing at '{path}'"))?.clone()
        }
        Command::Quit => {
            quit();
            json!({})
        }
    })
}

#[cfg(test)]
#[path = "control_socket_test.rs"]
mod tests;
