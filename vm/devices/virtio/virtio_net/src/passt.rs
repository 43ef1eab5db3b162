//! User-mode networks, by the program passt: <https://passt.top>.

use crate::MacAddress;
use crate::PortForward;
use crate::PortProtocol;
use crate::UserNetwork;
use crate::frame_stream::FrameStream;
use rustix::io::FdFlags;
use serde_json::json;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

const PROGRAM: &str = "passt";

/// The most bytes of passt's own words that are repeated.
const MAX_WORDS: usize = 2000;

/// Why there is no user-mode network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasstError {
    #[error("user-mode networks need the program passt; install it (apt-get install passt)")]
    Missing,
    #[error("failed to start passt")]
    Start(#[source] io::Error),
    #[error("passt refused the network ({status}): {words}")]
    Refused { status: ExitStatus, words: String },
}

/// Starts passt for the guest's `network`, with its gateway at the address `host`. If given, the guest is told the MTU.
///
/// passt has left its start behind when this returns, and ends when the returned backend is dropped.
pub(crate) fn start(
    network: &UserNetwork,
    host: MacAddress,
    mtu: Option<u16>,
) -> Result<FrameStream, PasstError> {
    start_program(PROGRAM, network, host, mtu)
}

fn start_program(
    program: &str,
    network: &UserNetwork,
    host: MacAddress,
    mtu: Option<u16>,
) -> Result<FrameStream, PasstError> {
    let (own, theirs) = UnixStream::pair().map_err(PasstError::Start)?;
    // It inherits its end.
    let inherited = rustix::io::fcntl_setfd(&theirs, FdFlags::empty());
    inherited.map_err(|error| PasstError::Start(error.into()))?;
    // It continues in the background as soon as all is well, and ends when it reads the end of the stream.
    let output = Command::new(program)
        .args(arguments(network, host, mtu, theirs.as_raw_fd()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PasstError::Missing,
        _ => PasstError::Start(error),
    })?;
    if !output.status.success() {
        return Err(PasstError::Refused {
            status: output.status,
            words: words(&output.stderr),
        });
    }
    let description = json!({
        "passt": format!("{}/{}", network.network, network.prefix_len),
    });
    FrameStream::new(own, description).map_err(PasstError::Start)
}

fn arguments(network: &UserNetwork, host: MacAddress, mtu: Option<u16>, fd: RawFd) -> Vec<String> {
    let mut arguments: Vec<String> = vec!["--quiet".into()];
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    add("--fd", fd.to_string());
    add("--address", network.guest().to_string());
    add("--netmask", network.prefix_len.to_string());
    add("--gateway", network.gateway().to_string());
    add("--mac-addr", host.to_string());
    if let Some(mtu) = mtu {
        add("--mtu", mtu.to_string());
    }
    for (option, protocol) in [
        ("--tcp-ports", PortProtocol::Tcp),
        ("--udp-ports", PortProtocol::Udp),
    ] {
        let forwards = network.forwards.iter();
        let mut ports: Vec<_> = forwards
            .filter(|forward| forward.protocol == protocol)
            .map(port)
            .collect();
        if ports.is_empty() {
            // Some versions forward the UDP ports with the numbers of TCP ports unless told otherwise.
            ports.push("none".to_owned());
        }
        for port in ports {
            add(option, port);
        }
    }
    arguments
}

fn port(forward: &PortForward) -> String {
    let (host, guest) = (forward.host_port, forward.guest_port);
    match forward.host_address {
        Some(IpAddr::V4(address)) => format!("{address}/{host}:{guest}"),
        Some(IpAddr::V6(address)) => format!("{address}/{host}:{guest}"),
        None => format!("{host}:{guest}"),
    }
}

/// What passt said, in one line, without what it says on each machine that has no system logger.
fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[..stderr.len().min(MAX_WORDS)]);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.ends_with("to syslog"))
        .collect();
    lines.join("; ")
}

#[cfg(test)]
#[path = "passt_test.rs"]
mod tests;
