//! TCP and UDP echo on port 7. Every reply names the VM.
//!
//! TCP: a frame is a big-endian u32 length and that many bytes; the reply is one line
//! `NAME SHA256-HEX LENGTH\n`. UDP: the reply is `NAME ` followed by the datagram, sent from the address it came to.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use sha2::{Digest, Sha256};

use super::pattern::hex;
use super::state::State;

/// The port of both echoes (RFC 862).
pub const PORT: u16 = 7;
/// Bytes of datagrams that wait for the echo: what came while the guest was stopped, or had no time, comes at once.
pub const BUFFER: usize = 4 << 20;
/// The longest frame a client may send, in bytes.
pub const MAX_FRAME: u32 = 1 << 20;

/// Serves one TCP connection until the client closes it.
pub fn tcp(state: &State, mut stream: TcpStream) -> io::Result<()> {
    let mut buf = Vec::new();
    loop {
        let mut len = [0; 4];
        match stream.read_exact(&mut len) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let len = u32::from_be_bytes(len);
        if len > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buf.resize(len as usize, 0);
        stream.read_exact(&mut buf)?;
        state.frames.fetch_add(1, Ordering::Relaxed);
        stream.write_all(reply(state.name(), &buf).as_bytes())?;
    }
}

/// The reply to a frame.
pub fn reply(name: &str, frame: &[u8]) -> String {
    format!("{name} {} {}\n", hex(&Sha256::digest(frame)), frame.len())
}

/// Starts the UDP echo for both families.
pub fn start_udp(state: &Arc<State>) -> io::Result<()> {
    // One socket per family: a dual-stack one reports IPv4 destinations in a mapped form it cannot reply from.
    let v4 = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&v4, sockopt::Ipv4PacketInfo, &true)?;
    bind(v4.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT)))?;
    let v6 = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&v6, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&v6, sockopt::Ipv6RecvPacketInfo, &true)?;
    bind(v6.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0)))?;
    for (fd, is_v4) in [(v4, true), (v6, false)] {
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)?;
        let state = Arc::clone(state);
        thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            let mut data = vec![0; 65536];
            loop {
                let done = if is_v4 {
                    answer::<SockaddrIn>(&state, &fd, &mut data)
                } else {
                    answer::<SockaddrIn6>(&state, &fd, &mut data)
                };
                if done.is_ok() {
                    state.datagrams.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
    }
    Ok(())
}

/// Receives one datagram and answers it from the address it was sent to.
fn answer<S: SockaddrLike>(state: &State, fd: &OwnedFd, data: &mut [u8]) -> io::Result<()> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let (len, from, info) = {
        let mut iov = [IoSliceMut::new(data)];
        let message = recvmsg::<S>(fd.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
        let info = message.cmsgs()?.next();
        (message.bytes, message.address, info)
    };
    state.seen.note(&data[..len]);
    let name = format!("{} ", state.name());
    let iov = [IoSlice::new(name.as_bytes()), IoSlice::new(&data[..len])];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(fd.as_raw_fd(), &iov, control, MsgFlags::empty(), from.as_ref()).map(|_| ())
    };
    match info {
        Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
            // ip(7): the source is ipi_spec_dst; for a VIP on lo the interface must stay open to routing.
            info.ipi_spec_dst = info.ipi_addr;
            info.ipi_ifindex = 0;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?;
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(mut info)) => {
            info.ipi6_ifindex = 0;
            send(&[ControlMessage::Ipv6PacketInfo(&info)])?;
        }
        _ => send(&[])?,
    }
    Ok(())
}
