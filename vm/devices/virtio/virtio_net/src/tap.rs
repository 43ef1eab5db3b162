//! Tap interfaces of the host.

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

/// The device file of tap interfaces.
const TUN: &str = "/dev/net/tun";

/// The maximum length of an interface name, in bytes.
const MAX_NAME: usize = 15;

/// A tap interface of the host.
///
/// The host receives on this interface what the guest sends, and the guest receives what the host sends on it.
/// Addresses, bridges, and whether it is up are left to the administrator.
#[derive(Debug)]
pub struct Tap {
    name: String,
    file: File,
    offloads: Offloads,
    mtu: u16,
}

/// Why a tap interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is invalid.
    #[error("{0:?} is not a valid name of a network interface")]
    Name(String),
    /// The host has no taps, or denies access.
    #[error("tap interface {name}: failed to open {TUN}")]
    Open {
        /// The interface.
        name: String,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// The interface is not a tap, is in use, or belongs to another user.
    #[error(
        "tap interface {name}: failed to {operation}; an interface that exists must be a tap without \
         multi_queue, owned by this user and not in use"
    )]
    Attach {
        /// The interface.
        name: String,
        /// What was attempted.
        operation: &'static str,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// The interface exists, with another MTU than the guest's.
    #[error(
        "tap interface {name}: its MTU is {tap}, but the guest's is {guest}; run `ip link set {name} mtu {guest}`, or \
         give no MTU"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// Its MTU, in bytes.
        tap: u16,
        /// The guest's.
        guest: u16,
    },
}

fn flags(offloads: Offloads) -> libc::c_uint {
    let mut flags = 0;
    // The kernel refuses the others without CSUM.
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
    /// Opens the interface `name`. If it does not exist, it is created with the address `host` and, if given, this MTU, and
    /// removed when the tap is closed; an existing one keeps its address, and must have this MTU.
    ///
    /// If the address is the same each time, the ARP cache of a guest that was hibernated remains valid.
    pub fn open(name: &str, host: MacAddress, mtu: Option<u16>) -> Result<Self, TapError> {
        let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
        let valid = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(allowed)
            && !matches!(name, "." | "..");
        if !valid {
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
        let (offloads, tap_mtu) = match Self::set_up(&file, &name, host, mtu) {
            Ok(found) => found,
            Err((operation, source)) => {
                return Err(TapError::Attach {
                    name,
                    operation,
                    source,
                });
            }
        };
        match mtu {
            Some(guest) if guest != tap_mtu => Err(TapError::Mtu {
                name,
                tap: tap_mtu,
                guest,
            }),
            _ => Ok(Self {
                name,
                file,
                offloads,
                mtu: tap_mtu,
            }),
        }
    }

    /// The MTU of the interface, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Attaches to the interface, and determines its offloads and its MTU.
    fn set_up(
        file: &File,
        name: &str,
        host: MacAddress,
        mtu: Option<u16>,
    ) -> Result<(Offloads, u16), (&'static str, io::Error)> {
        ioctl::attach(file, name).map_err(|e| ("attach to it", e))?;
        if !ioctl::is_persistent(file).map_err(|e| ("read its flags", e))? {
            ioctl::set_address(file, name, host.bytes()).map_err(|e| ("set its address", e))?;
            if let Some(mtu) = mtu {
                ioctl::set_mtu(name, mtu).map_err(|e| ("set its MTU", e))?;
            }
        }
        let mtu = ioctl::mtu(name).map_err(|e| ("read its MTU", e))?;
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
        // None are in use until the guest accepts them.
        ioctl::set_offload(file, 0).map_err(|e| ("set its offloads", e))?;
        // The largest MTU of a tap is 65521.
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        Ok((offloads.unwrap_or(Offloads::NONE), mtu))
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
