//! Logs, on standard error.

use std::io;
use std::io::IsTerminal;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that selects what is logged.
const VARIABLE: &str = "OPENVMM_LOG";

/// Starts logging. An error says what is wrong with the environment variable.
pub(crate) fn start() -> Result<(), String> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) => text
            .parse::<Targets>()
            .map_err(|error| format!("{VARIABLE}: '{text}' is not a log filter: {error}"))?,
        Err(_) => Targets::new().with_default(LevelFilter::WARN),
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(layer)
        .with(filter)
        .init();
    Ok(())
}
