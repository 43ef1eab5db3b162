//! Logs, on standard error or in a file.

use crate::exit::ExitCode;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that selects what is logged.
const VARIABLE: &str = "OPENVMM_LOG";

/// Why there is no log.
pub(crate) struct LogError {
    pub(crate) message: String,
    pub(crate) exit: ExitCode,
}

/// What the environment selects.
pub(crate) fn filter() -> Result<Targets, LogError> {
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().map_err(|error| LogError {
            message: format!("{VARIABLE}: '{text}' is not a log filter: {error}"),
            exit: ExitCode::CONFIG,
        }),
        Err(_) => Ok(Targets::new().with_default(LevelFilter::WARN)),
    }
}

/// Starts logging on standard error, or in a file that is replaced.
pub(crate) fn start(filter: Targets, file: Option<&Path>) -> Result<(), LogError> {
    let (writer, color) = match file {
        None => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        Some(path) => {
            let file: File = host_file::open_output(path).map_err(|error| LogError {
                message: format!("--log-file: cannot create {}: {error}", path.display()),
                exit: ExitCode::CONFIG,
            })?;
            (BoxMakeWriter::new(Arc::new(file)), false)
        }
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(color)
        // An error of the log would be printed in a way that panics if standard error is closed.
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(layer)
        .with(filter)
        .init();
    Ok(())
}
