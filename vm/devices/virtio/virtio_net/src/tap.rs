use crate::MacAddress;
use crate::NetBackend;
use crate::Offloads;
use crate::header;
use crate::ioctl;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;

/// The device that tap interfaces come from.
const TUN: &str = "/dev/net/tun";

/// The longest name of an interface, in bytes.
const MAX_NAME: usize = 15;

/// A tap interface of the host.
///
/// The device sends what the guest sends as if it was received by that interface, and receives what the host
/// sends there. Addresses, bridges, and whether it is up are the administrator's.
#[derive(Debug)]
pub struct Tap {
    name: String,
    file: File,
    offloads: Offloads,
}

/// Why a tap interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can be called so.
    #[error("{0:?} is not a name for a network interface")]
    Name(String),
    /// The host has no taps, or not for us.
    #[error("tap interface {name}: failed to open {TUN}")]
    Open {
        /// The interface.
        name: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The interface is of another kind, in use, or somebody else's.
    #[error(
        "tap interface {name}: failed to {operation}; an interface that exists must be a tap without \
         multi_queue, owned by this user and not in use"
    )]
    Attach {
        /// The interface.
        name: String,
        /// What was attempted.
        operation: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

fn flags(offloads: Offloads) -> libc::c_uint {
    let mut flags = 0;
    // The kernel refuses the others without it.
    if offloads.checksum {
        flags |= ioctl::TUN_F_CSUM;
        for (offered, flag) in [
            (offloads.tso4, ioctl::TUN_F_TSO4),
            (offloads.tso6, ioctl::TUN_F_TSO6),
            (
                offloads.ecn && (offloads.tso4 || offloads.tso6),
                ioctl::TUN_F_TSO_ECN,
            ),
            (offloads.ufo, ioctl::TUN_F_UFO),
        ] {
            if offered {
                flags |= flag;
            }
        }
    }
    flags
}

impl Tap {
    /// Opens the interface `name`. One that does not exist is created with the address `host`, and goes when the
    /// tap is closed; one that exists keeps its address.
    ///
    /// With the same address each time, a guest that slept meanwhile still knows who its neighbour is.
    pub fn open(name: &str, host: MacAddress) -> Result<Self, TapError> {
        let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
        let possible = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(allowed)
            && !matches!(name, "." | "..");
        if !possible {
            return Err(TapError::Name(name.to_owned()));
        }
        let name = name.to_owned();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = match options.open(TUN) {
            Ok(file) => file,
            Err(source) => return Err(TapError::Open { name, source }),
        };
        match Self::set_up(&file, &name, host) {
            Ok(offloads) => Ok(Self {
                name,
                file,
                offloads,
            }),
            Err((operation, source)) => Err(TapError::Attach {
                name,
                operation,
                source,
            }),
        }
    }

    /// Attaches to the interface, and finds out what it can do.
    fn set_up(
        file: &File,
        name: &str,
        host: MacAddress,
    ) -> Result<Offloads, (&'static str, io::Error)> {
        ioctl::attach(file, name).map_err(|e| ("attach to it", e))?;
        if !ioctl::is_persistent(file).map_err(|e| ("read its flags", e))? {
            ioctl::set_address(file, name, host.bytes()).map_err(|e| ("set its address", e))?;
        }
        ioctl::set_header_len(file, header::LEN as i32).map_err(|e| ("set its header", e))?;
        let segmentation = Offloads {
            checksum: true,
            tso4: true,
            tso6: true,
            ecn: true,
            ufo: false,
        };
        let all = Offloads {
            ufo: true,
            ..segmentation
        };
        let checksum = Offloads {
            checksum: true,
            ..Offloads::NONE
        };
        let offloads = [all, segmentation, checksum]
            .into_iter()
            .find(|offloads| ioctl::set_offload(file, flags(*offloads)).is_ok());
        // None are in use before the guest says so.
        ioctl::set_offload(file, 0).map_err(|e| ("set its offloads", e))?;
        Ok(offloads.unwrap_or(Offloads::NONE))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl NetBackend for Tap {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()> {
        ioctl::set_offload(&self.file, flags(offloads))
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "tap": self.name })
    }
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tests;
