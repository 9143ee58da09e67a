//! The kernel calls that the drivers of real interfaces share, as safe functions.
//!
//! This is one of the crate's rooms for `unsafe`: nothing here keeps a pointer beyond a call, so each proof is local.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_short, c_ulong};

use super::driver::PortError;

/// Turns the kernel's answer to a call into a result.
pub(super) fn check(answer: c_int) -> io::Result<c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// True if `error` is the error number `code`.
pub(super) fn is(error: &io::Error, code: c_int) -> bool {
    error.raw_os_error() == Some(code)
}

/// True if `error` is what a socket says whose interface is down, has gone, or was taken from it.
pub(super) fn is_interface_lost(error: &io::Error) -> bool {
    [libc::ENETDOWN, libc::ENXIO, libc::ENODEV].iter().any(|code| is(error, *code))
}

/// Refuses what cannot be the name of a Linux network interface. `%` would make the kernel choose one.
pub(super) fn check_interface_name(port: &str, name: &str) -> Result<(), PortError> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name == "." || name == ".." || name.contains(is_odd) {
        let reason = format!("{name:?} is not an interface name (1 to 15 bytes, no space, '/', ':' or '%')");
        return Err(PortError::setting(port, "interface", reason));
    }
    Ok(())
}

/// A closed-on-exec, nonblocking socket.
#[allow(unsafe_code)]
pub(super) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; a returned descriptor is new and nobody else's.
    unsafe {
        let fd = check(libc::socket(domain, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets a socket option. Not for options whose value holds addresses: the kernel would follow them.
#[allow(unsafe_code)]
pub(super) fn set_option(fd: &OwnedFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `value.len()` bytes at `value`.
    let answer =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t) };
    check(answer).map(drop)
}

/// Sets a socket option that is an `int`.
pub(super) fn set_int_option(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_option(fd, level, name, &value.to_ne_bytes())
}

/// Reads a socket option of at most `N` bytes; the rest is zero.
#[allow(unsafe_code)]
pub(super) fn get_option<const N: usize>(fd: &OwnedFd, level: c_int, name: c_int) -> io::Result<[u8; N]> {
    let mut value = [0u8; N];
    let mut len = N as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `value` has.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) })?;
    Ok(value)
}

/// Binds a socket to an address as it stands in memory.
#[allow(unsafe_code)]
pub(super) fn bind(fd: &OwnedFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `address.len()` bytes at `address`.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) }).map(drop)
}

/// The number of the interface that a packet socket is bound to; negative if that has gone.
#[allow(unsafe_code)]
pub(super) fn bound_interface(fd: &OwnedFd) -> io::Result<i32> {
    // struct sockaddr_ll: family, protocol, interface, and more than is read here.
    let mut address = [0u8; 32];
    let mut len = address.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `address` has.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut len) })?;
    Ok(i32::from_ne_bytes(core::array::from_fn(|i| address[4 + i])))
}

/// A packet socket that receives nothing and keeps the interface promiscuous until it is closed.
pub(super) fn promiscuous_socket(index: i32) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    join_promiscuous(&socket, index)?;
    Ok(socket)
}

/// Keeps the interface promiscuous until the packet socket is closed.
pub(super) fn join_promiscuous(socket: &OwnedFd, index: i32) -> io::Result<()> {
    // struct packet_mreq
    let mut membership = [0u8; 16];
    membership[..4].copy_from_slice(&index.to_ne_bytes());
    membership[4..6].copy_from_slice(&(libc::PACKET_MR_PROMISC as u16).to_ne_bytes());
    set_option(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// Tells the kernel that there is something to send on a socket whose queue is in shared memory.
#[allow(unsafe_code)]
pub(super) fn wake_sender(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no bytes and no address are passed.
    let answer =
        unsafe { libc::sendto(fd.as_raw_fd(), core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0) };
    check(answer as c_int).map(drop)
}

/// Tells the kernel that there is room to receive on such a socket. What it answers is known from the queue.
#[allow(unsafe_code)]
pub(super) fn wake_receiver(fd: &OwnedFd) {
    let (nothing, nobody, no_len) = (core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut());
    // SAFETY: no bytes and no address are asked for.
    unsafe { libc::recvfrom(fd.as_raw_fd(), nothing, 0, libc::MSG_DONTWAIT, nobody, no_len) };
}

/// Waits until a descriptor is ready or `timeout` is over; how many are ready. An interrupted wait is one that is over.
#[allow(unsafe_code)]
pub(super) fn poll(fds: &mut [libc::pollfd], timeout: core::time::Duration) -> usize {
    // Rounded up: a wait of less than a millisecond must not become a spin.
    let ms = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as c_int;
    // SAFETY: the kernel reads and writes `fds.len()` entries at `fds`.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, ms) }).unwrap_or(0) as usize
}

/// Questions and orders about network interfaces, in the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct Interfaces(OwnedFd);

impl Interfaces {
    pub(super) fn new() -> io::Result<Self> {
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map(Interfaces)
    }

    /// The interface's number; `ENODEV` if there is none of this name.
    pub(super) fn index(&self, name: &str) -> io::Result<i32> {
        let answer = self.ask(name, libc::SIOCGIFINDEX)?;
        Ok(i32::from_ne_bytes(first(&answer)))
    }

    /// Refuses an interface without Ethernet headers.
    pub(super) fn check_ethernet(&self, port: &str, name: &str) -> Result<(), PortError> {
        let answer = self.ask(name, libc::SIOCGIFHWADDR);
        let answer = answer.map_err(|e| PortError::io(port, format!("cannot read the type of {name}"), e))?;
        match u16::from_ne_bytes(first(&answer)) {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(()),
            other => {
                let reason = format!("{name} is no Ethernet interface (hardware type {other})");
                Err(PortError::setting(port, "interface", reason))
            }
        }
    }

    /// The interface's link-layer address, if it is an Ethernet interface.
    pub(super) fn address(&self, name: &str) -> io::Result<[u8; 6]> {
        // A sockaddr: the hardware type, then the address.
        let [_, _, address @ ..] = first::<8>(&self.ask(name, libc::SIOCGIFHWADDR)?);
        Ok(address)
    }

    /// The interface's MTU in bytes.
    pub(super) fn mtu(&self, name: &str) -> io::Result<usize> {
        let answer = self.ask(name, libc::SIOCGIFMTU)?;
        Ok(usize::try_from(i32::from_ne_bytes(first(&answer))).unwrap_or(0))
    }

    /// Sets the interface's MTU.
    pub(super) fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        self.call(name, libc::SIOCSIFMTU, &i32::from(mtu).to_ne_bytes()).map(drop)
    }

    /// True if the interface is up and has a carrier.
    pub(super) fn is_running(&self, name: &str) -> io::Result<bool> {
        let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
        Ok(self.flags(name)? & wanted == wanted)
    }

    /// Brings the interface up if it is not.
    pub(super) fn bring_up(&self, name: &str) -> io::Result<()> {
        let flags = self.flags(name)?;
        let up = libc::IFF_UP as c_short;
        if flags & up == 0 {
            self.call(name, libc::SIOCSIFFLAGS, &(flags | up).to_ne_bytes())?;
        }
        Ok(())
    }

    /// The name of the kernel driver behind the interface: `veth`, `ice`, …
    pub(super) fn driver_name(&self, name: &str) -> io::Result<String> {
        // struct ethtool_drvinfo: command, driver [u8; 32], and more than is read here; 196 bytes in all.
        const GET_DRIVER_INFO: u32 = 3;
        let info = self.ethtool(name, GET_DRIVER_INFO)?;
        let driver = &info[4..36];
        let len = driver.iter().position(|b| *b == 0).unwrap_or(driver.len());
        Ok(String::from_utf8_lossy(&driver[..len]).into_owned())
    }

    /// How many receive queues the interface has.
    pub(super) fn receive_queues(&self, name: &str) -> io::Result<u32> {
        // struct ethtool_channels: command, four maxima, then rx, tx, other and combined; 36 bytes in all.
        const GET_CHANNELS: u32 = 0x3c;
        let channels = self.ethtool(name, GET_CHANNELS)?;
        let count = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| channels[at + i]));
        Ok(count(20).saturating_add(count(32)))
    }

    /// One of the ethtool commands that only answer, with no more than 256 bytes.
    #[allow(unsafe_code)]
    fn ethtool(&self, name: &str, command: u32) -> io::Result<[u8; 256]> {
        let mut answer = [0u8; 256];
        answer[..4].copy_from_slice(&command.to_ne_bytes());
        let mut request = request(name);
        request.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
        // SAFETY: `request` is a valid ifreq whose data pointer leads to 256 writable bytes, more than the kernel writes for
        // the two commands above. Both outlive the call.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &mut request) })?;
        Ok(answer)
    }

    fn flags(&self, name: &str) -> io::Result<c_short> {
        let answer = self.ask(name, libc::SIOCGIFFLAGS)?;
        Ok(c_short::from_ne_bytes(first(&answer)))
    }

    fn ask(&self, name: &str, what: c_ulong) -> io::Result<[u8; 16]> {
        self.call(name, what, &[])
    }

    /// One of the `SIOC[GS]IF…` calls whose argument is a plain value in the ifreq.
    fn call(&self, name: &str, what: c_ulong, value: &[u8]) -> io::Result<[u8; 16]> {
        ifreq_call(self.0.as_raw_fd(), name, what, value).map(|(_, answer)| answer)
    }
}

fn first<const N: usize>(answer: &[u8; 16]) -> [u8; N] {
    core::array::from_fn(|i| answer[i])
}

#[allow(unsafe_code)]
fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain numbers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    // One byte stays zero at the end.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// An ioctl that takes an ifreq with a plain value and may change it. Returns the name and value afterwards.
#[allow(unsafe_code)]
fn ifreq_call(fd: RawFd, name: &str, what: c_ulong, value: &[u8]) -> io::Result<(String, [u8; 16])> {
    let mut request = request(name);
    let mut answer = [0u8; 16];
    answer[..value.len()].copy_from_slice(value);
    // SAFETY: the union has at least 16 bytes, and each of its members is valid for any bytes as far as the kernel
    // is concerned. The calls made here pass values, never addresses. `request` outlives the call.
    unsafe {
        let union: *mut u8 = (&raw mut request.ifr_ifru).cast();
        core::ptr::copy_nonoverlapping(answer.as_ptr(), union, answer.len());
        check(libc::ioctl(fd, what, &mut request))?;
        core::ptr::copy_nonoverlapping(union, answer.as_mut_ptr(), answer.len());
    }
    let name = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect::<Vec<_>>();
    Ok((String::from_utf8_lossy(&name).into_owned(), answer))
}

/// Makes an open `/dev/net/tun` a queue of the interface `name`, which is created if it does not exist.
pub(super) fn attach_tun(tun: &File, name: &str, flags: c_short) -> io::Result<()> {
    ifreq_call(tun.as_raw_fd(), name, libc::TUNSETIFF as c_ulong, &flags.to_ne_bytes()).map(drop)
}

/// The name of the interface that an open `/dev/net/tun` is attached to; `EBADFD` if that has gone.
pub(super) fn tun_interface(tun: &File) -> io::Result<String> {
    ifreq_call(tun.as_raw_fd(), "", libc::TUNGETIFF as c_ulong, &[]).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_nonsense_is_not() {
        let interfaces = Interfaces::new().unwrap();
        assert!(interfaces.index("lo").unwrap() > 0);
        assert!(interfaces.mtu("lo").unwrap() > 1000);
        assert!(is(&interfaces.index("no-such-if").unwrap_err(), libc::ENODEV));
        for name in ["", "sixteen-bytes-xx", "a b", "tap%d", "../x", "."] {
            assert!(check_interface_name("p", name).is_err(), "{name}");
        }
        assert!(check_interface_name("p", "eth0.100").is_ok());
    }
}
