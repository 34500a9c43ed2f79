//! An ICMP echo, over a raw socket of the probe's own (raw(7); RFC 792, RFC 4443).
//!
//! Raw, because the kernel's ping sockets are closed to everybody by default (`net.ipv4.ping_group_range`), while
//! lbx has CAP_NET_RAW to answer for VIPs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lbx_common::algo::checksum;
use lbx_common::health::Outcome;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv, send, socket,
};
use tokio::io::unix::AsyncFd;

use super::failed;

const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Tells one echo from all others of this process; the pid tells it from those of others.
static SENT: AtomicU32 = AtomicU32::new(0);

/// Asks once.
pub(super) async fn probe(addr: IpAddr, timeout: Duration) -> (Outcome, String) {
    match tokio::time::timeout(timeout, echo(addr)).await {
        Ok(Ok(())) => (Outcome::Good, format!("{addr} answered")),
        Ok(Err(error)) => failed(&error, &addr.to_string()),
        Err(_) => (Outcome::Silent, format!("no answer from {addr} within {} ms", timeout.as_millis())),
    }
}

async fn echo(addr: IpAddr) -> io::Result<()> {
    let v6 = addr.is_ipv6();
    let question = question(v6, mark());
    // SAFETY: an OwnedFd answers the same open descriptor for as long as it lives, and the AsyncFd owns it from here
    // on.
    let fd = unsafe { AsyncFd::register(open(addr)?) }?;
    send(fd.as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL)?;
    let mut packet = [0; 256];
    loop {
        let mut ready = fd.readable().await?;
        let received = ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty())?));
        // Would block: another one had it. Everything that is not the answer is passed over.
        if let Ok(length) = received
            && answers(v6, &packet[..length?], &question)
        {
            return Ok(());
        }
    }
}

/// A socket that hears ICMP from this address only.
fn open(addr: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match addr {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Raw, flags, protocol)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(addr, 0)))?;
    Ok(fd)
}

fn mark() -> [u8; 8] {
    let (count, pid) = (SENT.fetch_add(1, Ordering::Relaxed), std::process::id());
    (u64::from(pid) << 32 | u64::from(count)).to_be_bytes()
}

/// Type, code, checksum, identifier, sequence number, and the mark again where nothing rewrites it.
fn question(v6: bool, mark: [u8; 8]) -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = if v6 { ECHO_V6 } else { ECHO_V4 };
    message[4..6].copy_from_slice(&mark[2..4]);
    message[6..8].copy_from_slice(&mark[6..8]);
    message[8..].copy_from_slice(&mark);
    if !v6 {
        // Of an ICMPv6 message the kernel works it out, as it chooses the source address (RFC 3542, section 3.1).
        let sum = checksum::full(&message);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
    }
    message
}

/// Whether a received packet answers the question. IPv4 comes with its header, IPv6 without.
fn answers(v6: bool, packet: &[u8], question: &[u8; 16]) -> bool {
    let (message, kind) = if v6 {
        (Some(packet), REPLY_V6)
    } else {
        let header = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
        (packet.get(header..), REPLY_V4)
    };
    message.is_some_and(|message| {
        message.len() >= question.len()
            && message[..2] == [kind, 0]
            && message[4..question.len()] == question[4..]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_is_an_answer() {
        for v6 in [false, true] {
            let question = question(v6, mark());
            let mut reply = question;
            reply[0] = if v6 { REPLY_V6 } else { REPLY_V4 };
            let packet = |message: &[u8]| {
                let mut packet = if v6 { Vec::new() } else { vec![0x45; 20] };
                packet.extend_from_slice(message);
                packet
            };
            assert!(answers(v6, &packet(&reply), &question));
            assert!(!answers(v6, &packet(&question), &question), "the question itself, over loopback");
            for at in [4, 6, 15] {
                let mut other = reply;
                other[at] ^= 1;
                assert!(!answers(v6, &packet(&other), &question), "byte {at}");
            }
            assert!(!answers(v6, &packet(&reply[..15]), &question));
            assert!(!answers(v6, &[], &question));
        }
        assert_eq!(checksum::full(&question(false, [7; 8])), 0, "with its checksum the sum is 0");
    }

    #[tokio::test]
    async fn loopback_answers_whoever_may_ask() {
        let addr = "127.0.0.1".parse().unwrap();
        // Without the right to ask nobody is judged.
        let expected = if open(addr).is_ok() { Outcome::Good } else { Outcome::Unknown };
        let (outcome, detail) = probe(addr, Duration::from_secs(10)).await;
        assert_eq!(outcome, expected, "{detail}");
    }
}
