//! The guest's part of measurements: drives a disk or a TCP connection for a while, and says at which rate.
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
    /// Reads of 4 KiB at random places of a disk: how many a second.
    Random {
        disk: PathBuf,
        /// How many are on their way at a time.
        depth: u32,
        seconds: u64,
    },
    /// Reads of 1 MiB, one after the other: how many a second.
    Sequential { disk: PathBuf, seconds: u64 },
    /// Sends to a TCP server: MiB a second. The address is IP-PORT, as a colon ends a word of the guest's init.
    Send { server: String, seconds: u64 },
    /// Receives from a TCP server: MiB a second.
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
