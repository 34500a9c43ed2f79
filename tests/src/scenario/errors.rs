//! What ICMP told a UDP socket: the error, and who sent it (`IP_RECVERR`, ip(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

/// An ICMP error as a socket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// The errno it was turned into.
    pub errno: i32,
    /// ICMP or ICMPv6 type and code.
    pub kind: (u8, u8),
    /// The address it came from.
    pub from: IpAddr,
    /// The MTU, for "too big".
    pub info: u32,
}

/// Has the socket keep its errors for [`next`].
pub fn keep(socket: &UdpSocket, v4: bool) -> Result<()> {
    if v4 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(())
}

/// The next error, within `limit`.
pub fn next(socket: &UdpSocket, limit: Duration) -> Result<IcmpError> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let mut data = [0; 64];
        let mut iov = [std::io::IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Ok(message) => {
                for part in message.cmsgs()? {
                    match part {
                        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
                            let from = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into();
                            return Ok(read(&error, from));
                        }
                        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
                            return Ok(read(&error, Ipv6Addr::from(from.sin6_addr.s6_addr).into()));
                        }
                        _ => {}
                    }
                }
                bail!("an error without its origin");
            }
            Err(nix::errno::Errno::EAGAIN) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => bail!("no ICMP error came: {error}"),
        }
    }
}

fn read(error: &libc::sock_extended_err, from: IpAddr) -> IcmpError {
    IcmpError {
        errno: error.ee_errno as i32,
        kind: (error.ee_type, error.ee_code),
        from,
        info: error.ee_info,
    }
}
