//! The ioctls of `/dev/net/tun`.
#![allow(unsafe_code, reason = "ioctls take pointers")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// The offloads that the reader of a tap accepts: `TUN_F_*` of `<linux/if_tun.h>`.
pub(crate) const TUN_F_CSUM: libc::c_uint = 0x01;
pub(crate) const TUN_F_TSO4: libc::c_uint = 0x02;
pub(crate) const TUN_F_TSO6: libc::c_uint = 0x04;
pub(crate) const TUN_F_TSO_ECN: libc::c_uint = 0x08;
pub(crate) const TUN_F_UFO: libc::c_uint = 0x10;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A request for the interface `name`, of which 15 bytes are used.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: zeroes are valid for all of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Attaches `tun`, an open `/dev/net/tun`, to the tap interface `name`, which is created if absent. The name has at
/// most 15 bytes.
pub(crate) fn attach(tun: &File, name: &str) -> io::Result<()> {
    let mut request = request(name);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, which lives until it returns.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })
}

/// Whether the attached interface outlives the file: it was created by somebody else.
pub(crate) fn is_persistent(tun: &File) -> io::Result<bool> {
    // The kernel fills in name and flags.
    let mut request = request("");
    // SAFETY: the kernel writes one ifreq, which lives until it returns.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) })?;
    // SAFETY: the kernel wrote the flags, an integer for which all bits are valid.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok(flags & libc::IFF_PERSIST != 0)
}

/// Sets the Ethernet address of the attached interface.
pub(crate) fn set_address(tun: &File, name: &str, address: [u8; 6]) -> io::Result<()> {
    let mut request = request(name);
    let mut sa_data = [0; 14];
    for (to, from) in sa_data.iter_mut().zip(address) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data,
    };
    // SAFETY: the kernel reads one ifreq, which lives until it returns.
    checked(unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::SIOCSIFHWADDR as _,
            &raw const request,
        )
    })
}

/// Calls `ioctl` for the interface that `request` names, in the calling thread's network namespace.
fn interface_ioctl(operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the kernel reads and writes one ifreq, which lives until it returns.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), operation as _, &raw mut *request) })
}

/// The MTU of the interface `name`, in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let mut request = request(name);
    interface_ioctl(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel wrote the MTU, an integer for which all bits are valid.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u32::try_from(mtu).unwrap_or(0))
}

/// Sets the MTU of the interface `name`, in bytes.
pub(crate) fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu.into();
    interface_ioctl(libc::SIOCSIFMTU, &mut request)
}

/// Sets the length of the header of each frame.
pub(crate) fn set_header_len(tun: &File, len: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which lives until it returns.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) })
}

/// Sets the `TUN_F_*` that the reader accepts.
pub(crate) fn set_offload(tun: &File, flags: libc::c_uint) -> io::Result<()> {
    let flags = libc::c_ulong::from(flags);
    // SAFETY: the argument is a number.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags) })
}

/// The Ethernet address of the interface `name` in the calling thread's network namespace.
#[cfg(test)]
pub(crate) fn address(name: &str) -> io::Result<[u8; 6]> {
    let mut request = request(name);
    interface_ioctl(libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the kernel wrote the address, bytes for which all values are valid.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    Ok(std::array::from_fn(|index| data[index] as u8))
}

/// Gives the interface `name` in the calling thread's network namespace an IPv4 address, and brings it up.
#[cfg(test)]
pub(crate) fn bring_up(name: &str, address: std::net::Ipv4Addr) -> io::Result<()> {
    let mut request = request(name);
    let [a, b, c, d] = address.octets();
    request.ifr_ifru.ifru_addr = libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0].map(|byte| byte as libc::c_char),
    };
    interface_ioctl(libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    interface_ioctl(libc::SIOCSIFFLAGS, &mut request)
}

/// Makes the attached interface outlive the file.
#[cfg(test)]
pub(crate) fn keep(tun: &File) -> io::Result<()> {
    // SAFETY: the argument is a number.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as _, 1) })
}

/// Moves the calling thread to a new network namespace.
#[cfg(test)]
pub(crate) fn enter_new_network() -> io::Result<()> {
    // SAFETY: only the network namespace of the thread changes.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?)
}
