//! Frames over a real wire: sent and received by packet sockets (packet(7)) at the other ends of the bench's veths,
//! where the kernel does to tags what it does on a real port: it takes them out of the frame and keeps them beside it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

/// How long a carrier may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether an interface of the caller's namespace is up with all that belongs to it (RFC 2863).
fn is_up(dev: &str) -> io::Result<bool> {
    let shown = Command::new("ip").args(["-oneline", "link", "show", "dev", dev]).output()?;
    Ok(String::from_utf8_lossy(&shown.stdout).contains(" state UP "))
}

/// The far end of a port of the bench.
pub struct Wire(OwnedFd);

impl Wire {
    /// Brings port `n` up and opens its far end, in the caller's namespace.
    pub fn plug(n: u32) -> io::Result<Self> {
        let ends = [format!("b{n}"), format!("c{n}")];
        for dev in &ends {
            let done = Command::new("ip").args(["link", "set", dev, "up"]).status()?;
            assert!(done.success(), "ip link set {dev} up");
        }
        // Until the kernel has taken notice, in its own time, that there is a carrier, what is sent is dropped.
        let end = Instant::now() + PATIENCE;
        while !ends.iter().map(|dev| is_up(dev)).collect::<io::Result<Vec<_>>>()?.into_iter().all(|up| up) {
            assert!(Instant::now() < end, "no carrier on {ends:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self::on(&ends[1])
    }

    /// Opens an interface of the caller's namespace.
    pub fn on(name: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol))
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that socket(2) just made and nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (one, timeout) = (1_i32, libc::timeval { tv_sec: 0, tv_usec: 100_000 });
        set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &one)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        // SAFETY: sockaddr_ll is plain data, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = if_nametoindex(name)? as i32;
        // SAFETY: the address outlives the call, and its true size is given.
        let bound = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// Sends a frame into the port.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is live and its size is given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame to a MAC that comes out of the port within a time, its tag in its place again.
    pub fn receive(&self, to: [u8; 6], limit: Duration) -> io::Result<Option<Vec<u8>>> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            match self.one() {
                Ok(frame) if frame.starts_with(&to) => return Ok(Some(frame)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn one(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0_u8; 4096];
        // Aligned as control messages are.
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is plain data, for which all zeros is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message names buffers that are live, with their true sizes.
        let got = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        bytes.truncate(usize::try_from(got).map_err(|_| io::Error::last_os_error())?);
        // SAFETY: the kernel filled in the control messages of `message`, whose buffer is live.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        if first.is_null() || bytes.len() < 12 {
            return Ok(bytes);
        }
        // SAFETY: not null, so a whole header lies there.
        let header = unsafe { first.read() };
        if header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: messages of this type carry a tpacket_auxdata.
            let aux = unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                let tag = [aux.tp_vlan_tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes()].concat();
                bytes.splice(12..12, tag);
            }
        }
        Ok(bytes)
    }
}

fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the option's value is a plain structure that outlives the call, and its true size is given.
    let done = unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(fd.as_raw_fd(), level, option, value, size_of::<T>() as u32)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
