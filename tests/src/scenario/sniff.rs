//! Every frame on a link, as a packet socket sees it (packet(7)).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::lab::Netns;

/// How much of each frame is kept: all headers and the beginning of the data.
const KEPT: usize = 256;

/// A frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// It left by the link, rather than arriving.
    pub outgoing: bool,
    /// Its first bytes, from the Ethernet header on, without the VLAN tag.
    pub bytes: Vec<u8>,
    /// The id in its VLAN tag (IEEE 802.1Q), in band or beside the frame: to the socket both are one.
    pub vlan: Option<u16>,
    /// When it was read.
    pub at: Instant,
}

impl Frame {
    /// Destination MAC.
    pub fn to(&self) -> [u8; 6] {
        self.mac(0)
    }

    /// Source MAC.
    pub fn from(&self) -> [u8; 6] {
        self.mac(6)
    }

    /// Whether it is addressed to one station.
    pub fn is_unicast(&self) -> bool {
        self.bytes[0] & 1 == 0
    }

    /// EtherType; the tag's own if the socket shows one in band.
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]])
    }

    /// What stays the same of an IPv4 TCP segment on its way through switches and `dsr`: everything but the
    /// MACs. Two transmissions of the same data differ in their IP identification. `None` for anything else.
    pub fn segment(&self) -> Option<Vec<u8>> {
        let ip = self.bytes.get(14..)?;
        (self.ether_type() == 0x0800 && ip.len() >= 40 && ip[9] == 6).then(|| ip[..ip.len().min(72)].to_vec())
    }

    /// The sender of an ARP reply or gratuitous announcement about `addr`: (MAC, is a reply).
    pub fn arp_claim(&self, addr: [u8; 4]) -> Option<([u8; 6], bool)> {
        let arp = self.bytes.get(14..42)?;
        let sender: [u8; 6] = arp[8..14].try_into().ok()?;
        let says = self.ether_type() == 0x0806 && arp[14..18] == addr;
        says.then(|| (sender, arp[7] == 2))
    }

    /// The sender of a neighbour advertisement for `addr`: the frame's source MAC.
    pub fn nd_claim(&self, addr: [u8; 16]) -> Option<[u8; 6]> {
        let ip = self.bytes.get(14..14 + 40 + 24)?;
        let says = self.ether_type() == 0x86dd && ip[6] == 58 && ip[40] == 136 && ip[48..64] == addr;
        says.then(|| self.from())
    }

    fn mac(&self, at: usize) -> [u8; 6] {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.bytes[at..at + 6]);
        mac
    }
}

/// A running sniffer.
pub struct Sniffer {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    fd: Arc<OwnedFd>,
}

impl Sniffer {
    /// Starts to listen on a link of a namespace, promiscuously; it sees everything from the return on.
    pub fn start(ns: &Netns, dev: &str) -> Result<Self> {
        let fd = Arc::new(ns.run(|| open(dev))?.with_context(|| format!("listening on {dev}"))?);
        let (frames, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (fd, frames, stop) = (Arc::clone(&fd), Arc::clone(&frames), Arc::clone(&stop));
            std::thread::spawn(move || {
                // A timeout of recvfrom() is when the flag is looked at.
                while !stop.load(Ordering::SeqCst) {
                    if let Some(frame) = receive(&fd) {
                        frames.lock().expect("no holder panics").push(frame);
                    }
                }
            })
        };
        Ok(Self { frames, stop, thread: Some(thread), fd })
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Vec<Frame> {
        self.frames.lock().expect("no holder panics").clone()
    }

    /// Forgets what was seen so far.
    pub fn clear(&self) {
        self.frames.lock().expect("no holder panics").clear();
    }

    /// Ends; everything that was seen. Fails if the kernel dropped a frame for want of room.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        std::thread::sleep(Duration::from_millis(100));
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the sniffer panicked"))?;
        }
        let dropped = dropped(&self.fd)?;
        anyhow::ensure!(dropped == 0, "the sniffer missed {dropped} frames");
        Ok(std::mem::take(&mut *self.frames.lock().expect("no holder panics")))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn open(dev: &str) -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("a packet socket");
    }
    // SAFETY: a descriptor that socket(2) just made and nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = nix::net::if_::if_nametoindex(dev)? as i32;
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(256i32 << 20))?;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
    let promiscuous = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
    // SAFETY: sockaddr_ll is plain data, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    // SAFETY: the address outlives the call, and its true size is given.
    let bound = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
    };
    if bound < 0 {
        return Err(std::io::Error::last_os_error()).context("binding a packet socket");
    }
    Ok(fd)
}

fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<()> {
    // SAFETY: the option's value is a plain structure that outlives the call, and its true size is given.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    if done < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}

/// Room for one control message with a `tpacket_auxdata`, aligned as the kernel wants it.
type Control = [u64; 8];

fn receive(fd: &OwnedFd) -> Option<Frame> {
    let mut bytes = vec![0u8; KEPT];
    // SAFETY: sockaddr_ll is plain data, for which all zeros is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut control: Control = [0; 8];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data, for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: address, buffer and control room are live and their true sizes are given; the kernel writes no more.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0) };
    let got = usize::try_from(got).ok().filter(|&got| got >= 14)?;
    bytes.truncate(got);
    let vlan = tag(&message);
    Some(Frame { outgoing: from.sll_pkttype == libc::PACKET_OUTGOING, bytes, vlan, at: Instant::now() })
}

/// The tag that the kernel took off, from the frame's `tpacket_auxdata`.
fn tag(message: &libc::msghdr) -> Option<u16> {
    // SAFETY: the message was filled by recvmsg(2), and its control room is still live.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: the kernel puts a whole tpacket_auxdata behind a header of this type; read without regard to alignment.
    let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    (data.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some(data.tp_vlan_tci & 0xfff)
}

/// `PACKET_STATISTICS`: frames that found no room in the socket's buffer.
fn dropped(fd: &OwnedFd) -> Result<u32> {
    let mut stats = [0u32; 2];
    let mut length = size_of_val(&stats) as u32;
    // SAFETY: the option writes a tpacket_stats, two u32, into an array of that size.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            stats.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(stats[1]) }
}
