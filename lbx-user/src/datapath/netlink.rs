//! A few blocking rtnetlink requests: what XDP program is on an interface, and tc filters where there is no
//! tcx (before Linux 6.6). Layouts from include/uapi/linux/{netlink,rtnetlink,pkt_sched,pkt_cls,if_link}.h.

use super::error::{Error, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;

const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;

/// Priority of lbx's filters: behind those of the host, whose policy holds (A filter that drops has dropped).
pub const FILTER_PRIORITY: u16 = 0xc1b0;
/// Handle of lbx's filters.
const FILTER_HANDLE: u32 = 1;

/// [`XdpState::mode`] of an interface with a program in the driver and another in the stack.
pub const XDP_ATTACHED_MULTI: u8 = 4;

/// Which way a tc program looks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// Frames that come in by the interface.
    Ingress,
    /// Frames that go out by it.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Parent of the filters under clsact.
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

mod features;

pub use features::takes_redirects;

/// A message being built.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = 4 + value.len() as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.attr(kind | NLA_F_NESTED, &[]);
        fill(self);
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// `struct ifinfomsg`.
fn ifinfo(ifindex: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header
}

/// `struct tcmsg`.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (place, value) in header.chunks_mut(4).skip(1).zip([ifindex, handle, parent, info]) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// Sends a request; the payloads (behind the netlink header) of what comes back.
fn transact(request: Request) -> io::Result<Vec<Vec<u8>>> {
    transact_by(SockProtocol::NetlinkRoute, request)
}

fn transact_by(protocol: SockProtocol, request: Request) -> io::Result<Vec<Vec<u8>>> {
    let socket = open(protocol)?;
    send(socket.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let received = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..received];
        while let Some((kind, body, after)) = message(rest) {
            rest = after;
            match kind {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return if code == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => answers.push(body.to_vec()),
            }
        }
    }
}

fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // The kernel answers at once; a timeout only keeps a bug from hanging the caller.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    Ok(socket)
}

/// Splits the first message off: type, payload, rest.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header = bytes.get(..16)?;
    let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let body = bytes.get(16..len)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([header[4], header[5]]), body, rest))
}

/// The value of an attribute.
fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(header) = bytes.get(..4) {
        let len = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn find_u32(bytes: &[u8], wanted: u16) -> Option<u32> {
    find(bytes, wanted)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// The XDP program on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XdpState {
    /// 1 native, 2 generic, 3 offloaded, 4 several (`XDP_ATTACHED_*`).
    pub mode: u8,
    /// Id of the program (of the first one, with several).
    pub prog_id: u32,
}

/// What XDP program is on an interface, if any.
pub fn xdp_state(ifindex: u32) -> Result<Option<XdpState>> {
    let answers = transact(Request::new(RTM_GETLINK, NLM_F_ACK, &ifinfo(ifindex)))
        .map_err(Error::io(format!("asking for interface {ifindex}")))?;
    Ok(answers.first().and_then(|body| parse_xdp(body.get(16..)?)))
}

fn parse_xdp(attrs: &[u8]) -> Option<XdpState> {
    let xdp = find(attrs, IFLA_XDP)?;
    let mode = *find(xdp, IFLA_XDP_ATTACHED)?.first()?;
    if mode == 0 {
        return None;
    }
    // With several programs there is one attribute for each mode instead.
    let prog_id = (IFLA_XDP_PROG_ID..IFLA_XDP_PROG_ID + 4).find_map(|kind| find_u32(xdp, kind))?;
    Some(XdpState { mode, prog_id })
}

/// Takes off an XDP program that was attached by netlink. `flags`: `XDP_FLAGS_*_MODE`.
pub fn detach_xdp(ifindex: u32, flags: u32) -> Result<()> {
    let mut request = Request::new(RTM_SETLINK, NLM_F_ACK, &ifinfo(ifindex));
    request.nested(IFLA_XDP, |r| {
        r.attr(IFLA_XDP_FD, &(-1i32).to_ne_bytes());
        r.attr(IFLA_XDP_FLAGS, &flags.to_ne_bytes());
    });
    transact(request).map(drop).map_err(Error::io(format!("detaching XDP from interface {ifindex}")))
}

/// Adds the clsact qdisc. `Ok(false)`: it was there.
pub fn add_clsact(ifindex: u32) -> Result<bool> {
    let header = tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
    let mut request = Request::new(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header);
    request.attr(TCA_KIND, b"clsact\0");
    match transact(request) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(Error::io(format!("adding clsact to interface {ifindex}"))(e)),
    }
}

/// Removes the clsact qdisc with all its filters; that it is gone already is fine.
pub fn delete_clsact(ifindex: u32) -> Result<()> {
    let header = tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
    let mut request = Request::new(RTM_DELQDISC, NLM_F_ACK, &header);
    request.attr(TCA_KIND, b"clsact\0");
    gone_is_fine(transact(request), &format!("removing clsact from interface {ifindex}"))
}

/// `tcm_info` of lbx's filters: priority and all protocols.
fn filter_info() -> u32 {
    const ETH_P_ALL: u16 = 3;
    (u32::from(FILTER_PRIORITY) << 16) | u32::from(ETH_P_ALL.to_be())
}

/// Adds lbx's filter, or puts another program into it at once.
pub fn set_filter(ifindex: u32, direction: Direction, name: &str, program: RawFd) -> Result<()> {
    const ACT_DIRECT: u32 = 1;
    let header = tcmsg(ifindex, FILTER_HANDLE, direction.parent(), filter_info());
    let mut request = Request::new(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &header);
    request.attr(TCA_KIND, b"bpf\0");
    request.nested(TCA_OPTIONS, |r| {
        r.attr(TCA_BPF_FD, &program.to_ne_bytes());
        r.attr(TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
        r.attr(TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
    });
    transact(request).map(drop).map_err(Error::io(format!("adding tc filter {name} to interface {ifindex}")))
}

/// Removes lbx's filter; that it is gone already is fine.
pub fn delete_filter(ifindex: u32, direction: Direction) -> Result<()> {
    let header = tcmsg(ifindex, FILTER_HANDLE, direction.parent(), filter_info());
    let mut request = Request::new(RTM_DELTFILTER, NLM_F_ACK, &header);
    request.attr(TCA_KIND, b"bpf\0");
    gone_is_fine(transact(request), &format!("removing the tc filter from interface {ifindex}"))
}

/// A filter under clsact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// Its name, if it is a BPF filter.
    pub name: Option<String>,
    /// Id of its program, if it is a BPF filter.
    pub prog_id: Option<u32>,
}

/// The filters of an interface in one direction; none where there is no clsact.
pub fn filters(ifindex: u32, direction: Direction) -> Result<Vec<Filter>> {
    let header = tcmsg(ifindex, 0, direction.parent(), 0);
    match transact(Request::new(RTM_GETTFILTER, NLM_F_DUMP, &header)) {
        Ok(answers) => Ok(answers.iter().filter_map(|body| parse_filter(body)).collect()),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(e) => Err(Error::io(format!("listing the tc filters of interface {ifindex}"))(e)),
    }
}

fn parse_filter(body: &[u8]) -> Option<Filter> {
    let header = body.get(..20)?;
    let handle = u32::from_ne_bytes(*header[8..].first_chunk()?);
    let info = u32::from_ne_bytes(*header[16..].first_chunk()?);
    // Each priority is also listed once by itself, without a handle.
    if handle == 0 {
        return None;
    }
    let options = find(&body[20..], TCA_OPTIONS).unwrap_or_default();
    let name = find(options, TCA_BPF_NAME)
        .map(|n| String::from_utf8_lossy(n.strip_suffix(b"\0").unwrap_or(n)).into_owned());
    Some(Filter { priority: (info >> 16) as u16, name, prog_id: find_u32(options, TCA_BPF_ID) })
}

fn gone_is_fine(result: io::Result<Vec<Vec<u8>>>, what: &str) -> Result<()> {
    const GONE: [i32; 3] = [libc::ENOENT, libc::ENODEV, libc::EINVAL];
    match result {
        Err(e) if !e.raw_os_error().is_some_and(|n| GONE.contains(&n)) => Err(Error::io(what)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_found() {
        let mut request = Request::new(RTM_NEWTFILTER, NLM_F_ACK, &tcmsg(7, 1, 2, 3));
        request.attr(TCA_KIND, b"bpf\0");
        request.nested(TCA_OPTIONS, |r| {
            r.attr(TCA_BPF_NAME, b"lbx_tc\0");
            r.attr(TCA_BPF_ID, &42u32.to_ne_bytes());
        });
        let bytes = request.finish();
        assert_eq!(bytes.len() % 4, 0);
        let (kind, body, rest) = message(&bytes).unwrap();
        assert_eq!((kind, rest.len()), (RTM_NEWTFILTER, 0));
        let filter = parse_filter(body).unwrap();
        assert_eq!(filter, Filter { priority: 0, name: Some("lbx_tc".into()), prog_id: Some(42) });
        assert!(find(&body[20..], 99).is_none());
    }

    #[test]
    fn an_xdp_program_is_read_in_either_form() {
        let attrs = |mode: u8, kind: u16| {
            let mut r = Request(Vec::new());
            r.nested(IFLA_XDP, |r| {
                r.attr(IFLA_XDP_ATTACHED, &[mode]);
                r.attr(kind, &9u32.to_ne_bytes());
            });
            parse_xdp(&r.0)
        };
        assert_eq!(attrs(1, IFLA_XDP_PROG_ID), Some(XdpState { mode: 1, prog_id: 9 }));
        assert_eq!(attrs(4, IFLA_XDP_PROG_ID + 2), Some(XdpState { mode: 4, prog_id: 9 }));
        assert_eq!(attrs(0, IFLA_XDP_PROG_ID), None);
    }

    #[test]
    fn damaged_messages_end_the_search() {
        assert!(message(&[0; 15]).is_none());
        let mut short = [0u8; 20];
        short[0] = 64;
        assert!(message(&short).is_none());
        assert!(find(&[8, 0, 1, 0], 1).is_none());
        assert!(find(&[0, 0, 1, 0], 1).is_none());
    }
}
