//! A packet socket that hears only ARP and neighbour discovery (packet(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::frame::{self, Heard};

/// Which frames the kernel hands to the socket at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// ARP delivered to this device: costs other packets nothing.
    Arp,
    /// IPv6 delivered to this device, all but neighbour discovery filtered out.
    Ipv6,
    /// Everything that comes in, also where a bridge takes it away; for tagged frames on an uplink.
    All,
}

impl Scope {
    const fn protocol(self) -> u16 {
        match self {
            Self::Arp => libc::ETH_P_ARP as u16,
            Self::Ipv6 => libc::ETH_P_IPV6 as u16,
            Self::All => libc::ETH_P_ALL as u16,
        }
    }
}

/// An open socket, bound to one interface.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
}

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_INDEX: u32 = libc::BPF_LDX | libc::BPF_IMM;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// ARP, or ICMPv6 types 135 and 136. Offsets are counted from the index, which skips a VLAN tag in the frame.
static FILTER: [libc::sock_filter; 15] = [
    step(LOAD_HALF | libc::BPF_ABS, 0, 0, 12),
    step(EQUAL, 0, 2, 0x8100),
    step(LOAD_INDEX, 0, 0, 4),
    step(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
    step(LOAD_INDEX, 0, 0, 0),
    step(LOAD_HALF | libc::BPF_IND, 0, 0, 12),
    step(EQUAL, 6, 0, 0x0806),
    step(EQUAL, 0, 6, 0x86dd),
    step(LOAD_BYTE, 0, 0, 20),
    step(EQUAL, 0, 4, 58),
    step(LOAD_BYTE, 0, 0, 54),
    step(EQUAL, 1, 0, 135),
    step(EQUAL, 0, 1, 136),
    step(RETURN, 0, 0, 256),
    step(RETURN, 0, 0, 0),
];

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live `T` and the length is its size; the kernel copies it during the call.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) })
        .map(drop)
}

/// A packet socket of protocol 0, which receives nothing until it is bound.
fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let fd = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor was just made and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn link_address(ifindex: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain struct.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex as i32;
    address
}

/// Sends on any interface, and hears nothing.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// The system call that failed.
    pub fn open() -> io::Result<Self> {
        packet_socket().map(Self)
    }

    /// Sends a whole frame out of an interface.
    ///
    /// # Errors
    /// The system call failed: the interface is gone or down, or its queue is full.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let address = link_address(ifindex, 0);
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the frame is a live slice of the given length, the address a live sockaddr_ll of its own.
        let sent = unsafe {
            let to = std::ptr::from_ref(&address).cast();
            libc::sendto(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, len)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Socket {
    /// Opens a socket on an interface. Needs CAP_NET_RAW and a tokio runtime.
    ///
    /// # Errors
    /// The system call that failed.
    pub fn open(ifindex: u32, scope: Scope) -> io::Result<Self> {
        let fd = packet_socket()?;
        let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
        // The filter is only read: `filter` is `*mut` for historical reasons.
        set(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        let membership = libc::packet_mreq {
            mr_ifindex: ifindex as i32,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        let address = link_address(ifindex, scope.protocol());
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a live sockaddr_ll of the given length.
        checked(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) })?;
        // SAFETY: an OwnedFd answers the same open descriptor for as long as it lives, and it lives as long as
        // the AsyncFd that owns it from here on.
        Ok(Self { fd: unsafe { AsyncFd::register(fd) }? })
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// The system call failed; a full queue is an error too, the sender will try again by itself.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: pointer and length are of one live slice.
        let sent = unsafe { libc::send(fd, frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for the next frame that says something about an address.
    ///
    /// # Errors
    /// The interface is gone or down.
    pub async fn heard(&self) -> io::Result<Heard> {
        loop {
            let mut guard = self.fd.readable().await?;
            match guard.try_io(|fd| receive(fd.get_ref())) {
                Ok(Ok(Some(heard))) => return Ok(heard),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// `TP_STATUS_VLAN_VALID` of include/uapi/linux/if_packet.h.
const VLAN_VALID: u32 = 1 << 4;

fn receive(fd: &OwnedFd) -> io::Result<Option<Heard>> {
    let mut frame = [0u8; 256];
    // Room for one header and one tpacket_auxdata, aligned for both.
    let mut control = [0u64; 16];
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = std::ptr::from_mut(&mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message is to a live local of the length beside it.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    if from.sll_pkttype == libc::PACKET_OUTGOING {
        return Ok(None);
    }
    let mut tag = None;
    // SAFETY: the message was filled in by recvmsg and its control buffer is live and aligned.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header within the buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: the kernel puts a tpacket_auxdata behind a header of this type.
            let data: libc::tpacket_auxdata =
                unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
            if data.tp_status & VLAN_VALID != 0 {
                tag = Some(data.tp_vlan_tci & 0xfff);
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `header` came from it.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(frame.get(..len as usize).and_then(|frame| frame::parse(frame, tag)))
}
