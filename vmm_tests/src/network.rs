//! The host's side of a guest's network.

use anyhow::Context;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// A tap interface with its own network, different from those of all other tests in this process.
///
/// The interface exists while a VM has it open.
#[derive(Debug)]
pub struct HostTap {
    number: u8,
}

static NEXT: AtomicU8 = AtomicU8::new(1);

impl HostTap {
    /// Takes the next unused name and network.
    pub fn new() -> Self {
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The interface's name.
    pub fn name(&self) -> String {
        format!("vmtest{}", self.number)
    }

    /// What `--net` is given.
    pub fn argument(&self) -> String {
        format!("tap:{}", self.name())
    }

    /// The host's address.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.number, 1)
    }

    /// The guest's address.
    pub fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.number, 2)
    }

    /// Gives the host its address, once a VM has the interface open. Needs root.
    pub fn bring_up(&self) -> anyhow::Result<()> {
        let name = self.name();
        let address = format!("{}/24", self.host());
        ip(&["address", "add", &address, "dev", &name])?;
        ip(&["link", "set", &name, "up"])
    }
}

impl Default for HostTap {
    fn default() -> Self {
        Self::new()
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("/bin/busybox")
        .arg("ip")
        .args(arguments)
        .output()
        .context("cannot run busybox")?;
    anyhow::ensure!(
        output.status.success(),
        "ip {} failed (this needs to be root): {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
