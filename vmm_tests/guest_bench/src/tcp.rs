//! Measures the rate of a TCP stream.

use anyhow::Context;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

const BUFFER: usize = 256 << 10;
const MIB: f64 = (1 << 20) as f64;

/// The rate of sending, in MiB per second. Data in buffers at the end counts as sent; it is little.
pub(crate) fn send(server: SocketAddr, duration: Duration) -> anyhow::Result<f64> {
    let buffer = vec![b'x'; BUFFER];
    drive(server, duration, |stream| {
        stream.write_all(&buffer).map(|()| BUFFER)
    })
}

/// The rate of receiving, in MiB per second.
pub(crate) fn receive(server: SocketAddr, duration: Duration) -> anyhow::Result<f64> {
    let mut buffer = vec![0; BUFFER];
    drive(server, duration, |stream| stream.read(&mut buffer))
}

fn drive(
    server: SocketAddr,
    duration: Duration,
    mut step: impl FnMut(&mut TcpStream) -> std::io::Result<usize>,
) -> anyhow::Result<f64> {
    let mut stream =
        TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < duration {
        let moved =
            step(&mut stream).with_context(|| format!("the stream with {server} failed"))?;
        anyhow::ensure!(moved > 0, "{server} closed the stream");
        bytes += moved;
    }
    Ok(bytes as f64 / MIB / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn streams_flow_in_both_directions() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut sink, _) = listener.accept().unwrap();
            std::io::copy(&mut sink, &mut std::io::sink()).unwrap();
            let (mut source, _) = listener.accept().unwrap();
            while source.write_all(&[0; 4096]).is_ok() {}
        });
        let duration = Duration::from_millis(10);
        assert!(send(server, duration).unwrap() > 0.0);
        assert!(receive(server, duration).unwrap() > 0.0);
        serving.join().unwrap();
    }
}
