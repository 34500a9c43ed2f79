//! TCP connections from a chosen source address, with a time limit.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};

/// Connects to `to`, from `source` if given, in the calling thread's namespace. Reads and writes get the same limit.
pub fn tcp(to: SocketAddr, source: Option<IpAddr>, limit: Duration) -> io::Result<TcpStream> {
    tcp_from(to, source.map(|ip| SocketAddr::new(ip, 0)), limit)
}

/// Like [`tcp`], with a choice of the source port too (0: the kernel's choice).
pub fn tcp_from(to: SocketAddr, source: Option<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    if let Some(source) = source {
        // The port is then chosen by connect(), and needs to be free for this server only.
        if source.port() == 0 {
            bind_address_no_port(fd.as_raw_fd())?;
        } else {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => {
            let mut poll_fd = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
            let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
            loop {
                match poll(&mut poll_fd, timeout) {
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "connect timed out")),
                    Ok(_) => break,
                    Err(Errno::EINTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            match getsockopt(&fd, sockopt::SocketError)? {
                0 => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Err(e) => return Err(e.into()),
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn bind_address_no_port(fd: i32) -> io::Result<()> {
    let on = 1i32;
    // SAFETY: the option takes an int, and `on` is one that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
