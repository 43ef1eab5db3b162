use crate::SerialBackend;
use crate::SerialConnection;
use crate::SerialError;
use crate::SerialPort;
use crate::port::SavedLine;
use chipset_device::RestoreError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Decoder;
use minicbor::Encode;
use minicbor::Encoder;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long a stalled reader may keep the output of a VM that has ended.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// What a serial line is connected to on the host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SerialEnd {
    /// The front end's console: its standard input and output.
    #[n(0)]
    Console,
    /// Standard error; output only.
    #[n(1)]
    Stderr,
    /// A file, made anew; output only.
    #[n(2)]
    #[cbor(map)]
    File(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
    /// A Unix socket that one client at a time connects to.
    #[n(3)]
    #[cbor(map)]
    Listen(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
    /// A new pseudo-terminal.
    #[n(4)]
    Pty,
    /// A TCP socket that one client at a time connects to.
    #[n(5)]
    #[cbor(map)]
    ListenTcp(#[n(1)] TcpEnd),
}

/// The address of a TCP socket; with port 0, the host chooses the port. Encoded as text.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct TcpEnd(pub SocketAddr);

impl<C> Encode<C> for TcpEnd {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TcpEnd {
    fn decode(d: &mut Decoder<'b>, _ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let address = d.str()?.parse();
        address
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("not a TCP address"))
    }
}

/// What happens to the host's input of a serial port.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SerialInput {
    /// The guest gets none of it.
    #[n(0)]
    Dropped,
}

/// All serial lines of a machine, connected to the host: a service of the machine for the devices that have one.
pub struct SerialConnections(Mutex<Lines>);

struct Lines {
    lines: Vec<Line>,
    /// Taken by the first line that is the console.
    console_output: Option<Box<dyn Write + Send>>,
    console: Option<SerialPort>,
    ptys: Vec<(String, PathBuf)>,
    listeners: Vec<(String, SocketAddr)>,
}

/// What each line holds, by the name of its device.
#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedLines {
    #[n(1)]
    lines: BTreeMap<String, SavedLine>,
}

struct Line {
    name: String,
    port: SerialPort,
    _connection: SerialConnection,
}

impl SerialConnections {
    /// Without any line. The output of the console goes to `console_output`.
    pub fn new(console_output: Box<dyn Write + Send>) -> Self {
        Self(Mutex::new(Lines {
            lines: Vec::new(),
            console_output: Some(console_output),
            console: None,
            ptys: Vec::new(),
            listeners: Vec::new(),
        }))
    }

    /// A new line for the device called `name`, connected to `end`.
    pub fn connect(&self, name: &str, end: &SerialEnd) -> Result<SerialPort, SerialError> {
        let mut lines = self.0.lock();
        let port = SerialPort::new();
        let backend = match end {
            SerialEnd::Console => {
                lines.console.get_or_insert(port.clone());
                match lines.console_output.take() {
                    Some(output) => SerialBackend::sink(output),
                    None => SerialBackend::stdout(),
                }
            }
            SerialEnd::Stderr => SerialBackend::stderr(),
            SerialEnd::File(path) => SerialBackend::file(path)?,
            SerialEnd::Listen(path) => SerialBackend::unix_listener(path)?,
            SerialEnd::Pty => {
                let (backend, path) = SerialBackend::pty()?;
                lines.ptys.push((name.to_owned(), path));
                backend
            }
            SerialEnd::ListenTcp(TcpEnd(address)) => {
                let (backend, address) = SerialBackend::tcp_listener(*address)?;
                lines.listeners.push((name.to_owned(), address));
                backend
            }
        };
        let connection = port.connect(name, backend)?;
        lines.lines.push(Line {
            name: name.to_owned(),
            port: port.clone(),
            _connection: connection,
        });
        Ok(port)
    }

    /// The line that is the front end's console.
    pub fn console(&self) -> Option<SerialPort> {
        self.0.lock().console.clone()
    }

    /// The pseudo-terminals that were made: the device's name, and the terminal's path.
    pub fn ptys(&self) -> Vec<(String, PathBuf)> {
        self.0.lock().ptys.clone()
    }

    /// The TCP sockets that listen: the device's name, and the address.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.0.lock().listeners.clone()
    }

    /// Writes out what the lines hold. A reader that takes nothing is given up on.
    pub fn flush(&self) {
        for line in &self.0.lock().lines {
            let left = line.port.flush(FLUSH_PATIENCE);
            if left > 0 {
                tracing::warn!(
                    port = line.name,
                    bytes = left,
                    "the last output was not read and is lost"
                );
            }
        }
    }

    /// What the lines hold: output that no backend has taken, and input that the guest has not read. The guest is
    /// stopped.
    pub fn save(&self) -> SavedState {
        let lines = &self.0.lock().lines;
        let lines = lines
            .iter()
            .map(|line| (line.name.clone(), line.port.save()));
        SavedState::encode(&SavedLines {
            lines: lines.collect(),
        })
    }

    /// Replaces what the lines hold. The guest is stopped. On an error nothing has changed.
    pub fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let SavedLines { lines: mut saved } = state.decode()?;
        let lines = &self.0.lock().lines;
        let fits = saved.len() == lines.len()
            && lines
                .iter()
                .all(|line| saved.get(&line.name).is_some_and(SerialPort::holds));
        if !fits {
            return Err(RestoreError::Invalid(
                "its serial lines are not those of this machine, or hold too much".into(),
            ));
        }
        for line in lines {
            if let Some(saved) = saved.remove(&line.name) {
                line.port.restore(saved);
            }
        }
        Ok(())
    }

    /// How much went over the lines, by the devices' names.
    pub fn inspect(&self) -> Value {
        let lines = self.0.lock();
        let lines = lines.lines.iter().map(|line| {
            let stats = line.port.stats();
            (line.name.clone(), stats.inspect())
        });
        Value::Object(lines.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_goes_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = SerialConnections::new(Box::new(std::io::sink()));
        assert!(lines.console().is_none());
        let end = SerialEnd::File(file.path().into());
        let port = lines.connect("com2", &end).unwrap();
        lines.connect("com1", &SerialEnd::Console).unwrap();
        lines.connect("com3", &SerialEnd::Pty).unwrap();
        assert!(port.write_output(b'x'));
        lines.flush();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"x");
        assert!(lines.console().is_some());
        let ptys = lines.ptys();
        assert_eq!(ptys[0].0, "com3");
        assert!(ptys[0].1.starts_with("/dev/pts"));
        let names: Vec<_> = match lines.inspect() {
            Value::Object(map) => map.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other}"),
        };
        assert_eq!(names, ["com2", "com1", "com3"]);
        assert_eq!(
            lines.inspect()["com2"],
            serde_json::json!({"output": 1, "overwritten": 0, "refused": 0, "failed": 0, "input": 0})
        );
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error() {
        let lines = SerialConnections::new(Box::new(std::io::sink()));
        let end = SerialEnd::File("/nonexistent/x".into());
        let error = lines.connect("com1", &end).err();
        assert!(matches!(error, Some(SerialError::File { .. })));
        assert_eq!(lines.inspect(), serde_json::json!({}));
    }

    #[test]
    fn what_lines_hold_is_saved_and_restored() {
        let directory = tempfile::tempdir().unwrap();
        let lines = |name: &str| {
            let lines = SerialConnections::new(Box::new(std::io::sink()));
            // Nobody connects, so that output stays.
            let end = SerialEnd::Listen(directory.path().join(name));
            let port = lines.connect("com1", &end).unwrap();
            (lines, port)
        };
        let (first, port) = lines("first");
        assert!(port.write_output(b'o'));
        assert_eq!(port.write_input(b"in"), 2);
        assert!(port.send_break());
        let saved = first.save();
        let (second, port) = lines("second");
        second.restore(&saved).unwrap();
        assert_eq!(second.save(), saved);
        assert_eq!(port.receive(), Some(crate::port::Input::Byte(b'i')));

        // Another machine's lines, and more than a line holds.
        let other = SerialConnections::new(Box::new(std::io::sink()));
        assert!(matches!(
            other.restore(&saved),
            Err(RestoreError::Invalid(_))
        ));
        let too_much = SavedState::encode(&SavedLines {
            lines: BTreeMap::from([(
                "com1".to_owned(),
                SavedLine {
                    output: vec![0; SerialPort::OUTPUT_CAPACITY + 1],
                    input: Vec::new(),
                },
            )]),
        });
        let before = second.save();
        assert!(matches!(
            second.restore(&too_much),
            Err(RestoreError::Invalid(_))
        ));
        assert_eq!(second.save(), before);
    }
}
