//! The guest's part of measurements: measures the rate of a disk or a TCP connection.
#![forbid(unsafe_code)]

mod disk;
mod tcp;

use clap::Parser;
use clap::Subcommand;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Random reads of 4 KiB from a disk, per second.
    Random {
        disk: PathBuf,
        /// How many reads run at a time.
        depth: u32,
        seconds: u64,
    },
    /// Sequential reads of 1 MiB from a disk, per second.
    Sequential { disk: PathBuf, seconds: u64 },
    /// Sends to a TCP server, in MiB per second. The address is IP-PORT: the guest's init splits commands at colons.
    Send { server: String, seconds: u64 },
    /// Receives from a TCP server, in MiB per second.
    Receive { server: String, seconds: u64 },
}

fn main() -> anyhow::Result<()> {
    let rate = match Args::parse().measurement {
        Measurement::Random {
            disk,
            depth,
            seconds,
        } => disk::random_reads(&disk, depth, Duration::from_secs(seconds)),
        Measurement::Sequential { disk, seconds } => {
            disk::sequential_reads(&disk, Duration::from_secs(seconds))
        }
        Measurement::Send { server, seconds } => {
            tcp::send(address(&server)?, Duration::from_secs(seconds))
        }
        Measurement::Receive { server, seconds } => {
            tcp::receive(address(&server)?, Duration::from_secs(seconds))
        }
    }?;
    println!("vmtest: bench {rate:.3}");
    Ok(())
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    Ok(text.replace('-', ":").parse()?)
}
