//! The host's ends of the serial ports.

use openvmm_defs::config::SerialConfig;
use serde_json::Value;
use serde_json::json;
use serial_16550::BackendError;
use serial_16550::ConnectError;
use serial_16550::SerialBackend;
use serial_16550::SerialConnection;
use serial_16550::SerialPort;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The names of COM1 to COM4, as users know them.
const COM_NAMES: [&str; 4] = ["COM1", "COM2", "COM3", "COM4"];

/// How long a stalled reader may keep the output of a VM that has ended.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Why a serial port has no other end.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// The backend cannot be made.
    #[error("{port}")]
    Backend {
        /// The port.
        port: &'static str,
        /// Why.
        #[source]
        source: BackendError,
    },
    /// The backend cannot be connected.
    #[error("{port}")]
    Connect {
        /// The port.
        port: &'static str,
        /// Why.
        #[source]
        source: ConnectError,
    },
}

/// The lines of all serial ports, connected.
pub(crate) struct SerialPorts {
    lines: Vec<Line>,
    console: Option<usize>,
    ptys: Vec<(&'static str, PathBuf)>,
}

struct Line {
    name: &'static str,
    port: SerialPort,
    _connection: SerialConnection,
}

impl SerialPorts {
    /// Makes and connects all that are configured.
    pub(crate) fn new(
        com: &[SerialConfig; 4],
        debugcon: Option<&(u16, SerialConfig)>,
        console_output: Box<dyn Write + Send>,
    ) -> Result<Self, SerialError> {
        let mut ports = Self {
            lines: Vec::new(),
            console: None,
            ptys: Vec::new(),
        };
        let mut console_output = Some(console_output);
        for (name, config) in COM_NAMES.into_iter().zip(com) {
            ports.connect(name, config, &mut console_output)?;
        }
        if let Some((_, config)) = debugcon {
            ports.connect("debugcon", config, &mut console_output)?;
        }
        Ok(ports)
    }

    fn connect(
        &mut self,
        name: &'static str,
        config: &SerialConfig,
        console_output: &mut Option<Box<dyn Write + Send>>,
    ) -> Result<(), SerialError> {
        let failed = |source| SerialError::Backend { port: name, source };
        let backend = match config {
            SerialConfig::None => return Ok(()),
            SerialConfig::Console => {
                self.console.get_or_insert(self.lines.len());
                match console_output.take() {
                    Some(output) => SerialBackend::sink(output),
                    None => SerialBackend::stdout(),
                }
            }
            SerialConfig::Stderr => SerialBackend::stderr(),
            SerialConfig::File(path) => SerialBackend::file(path).map_err(failed)?,
            SerialConfig::Listen(path) => SerialBackend::unix_listener(path).map_err(failed)?,
            SerialConfig::Pty => {
                let (backend, path) = SerialBackend::pty().map_err(failed)?;
                self.ptys.push((name, path));
                backend
            }
        };
        let port = SerialPort::new();
        let connection = port
            .connect(&name.to_lowercase(), backend)
            .map_err(|source| SerialError::Connect { port: name, source })?;
        self.lines.push(Line {
            name,
            port,
            _connection: connection,
        });
        Ok(())
    }

    /// The line of COM port `index` (0 for COM1).
    pub(crate) fn com(&self, index: usize) -> Option<&SerialPort> {
        self.line(COM_NAMES.get(index)?)
    }

    /// The debug console's line.
    pub(crate) fn debugcon(&self) -> Option<&SerialPort> {
        self.line("debugcon")
    }

    fn line(&self, name: &str) -> Option<&SerialPort> {
        self.lines
            .iter()
            .find(|line| line.name == name)
            .map(|line| &line.port)
    }

    /// The line that is the front end's console.
    pub(crate) fn console(&self) -> Option<&SerialPort> {
        Some(&self.lines.get(self.console?)?.port)
    }

    /// The pseudo-terminals made.
    pub(crate) fn ptys(&self) -> &[(&'static str, PathBuf)] {
        &self.ptys
    }

    /// Writes out what the lines hold.
    pub(crate) fn flush(&self) {
        for line in &self.lines {
            let left = line.port.flush(FLUSH_PATIENCE);
            if left > 0 {
                tracing::warn!(
                    port = line.name,
                    bytes = left,
                    "nobody took the last output"
                );
            }
        }
    }

    /// What went over the lines.
    pub(crate) fn inspect(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            let stats = line.port.stats();
            (line.name.to_lowercase(), json!(format!("{stats:?}")))
        });
        Value::Object(lines.collect())
    }
}
