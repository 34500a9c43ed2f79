//! UDP clients of the echo service: flows are told apart by their source port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::{PerVm, note};
use crate::lab::Netns;

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Flows by the VM that answered their first datagram.
    pub flows: PerVm,
    /// Datagrams answered.
    pub answered: u64,
    /// Datagrams without an answer in time.
    pub lost: u64,
    /// Answers from another VM than the flow's first.
    pub moved: u64,
    /// The first few failures.
    pub errors: Vec<String>,
}

/// One datagram on an open socket; the VM that echoed it.
///
/// The socket is connected, so an answer from any other address than `server` would not arrive.
pub fn ask(socket: &UdpSocket, payload: &[u8]) -> Result<String> {
    socket.send(payload)?;
    let mut buf = vec![0; 65536];
    let n = socket.recv(&mut buf).context("no answer")?;
    let space = buf[..n].iter().position(|&b| b == b' ').context("no name in the answer")?;
    if buf[space + 1..n] != *payload {
        bail!("{} bytes came back as {}", payload.len(), n - space - 1);
    }
    Ok(String::from_utf8_lossy(&buf[..space]).into_owned())
}

/// A socket connected to `server`, in the calling thread's namespace.
pub fn socket(server: SocketAddr, source: Option<IpAddr>, limit: Duration) -> Result<UdpSocket> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
    // Answers may come all at once, to a thread that has no time.
    setsockopt(&socket, sockopt::RcvBufForce, &crate::guest::echo::BUFFER)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(limit))?;
    Ok(socket)
}

/// Sends `datagrams` on each of `flows` flows, one flow after the other.
pub fn run(ns: &Netns, server: SocketAddr, flows: usize, datagrams: usize, size: usize) -> Result<Report> {
    ns.run(|| {
        let mut report = Report::default();
        for flow in 0..flows {
            let socket = socket(server, None, Duration::from_secs(2))?;
            let mut first: Option<String> = None;
            for number in 0..datagrams {
                let mut payload = vec![0; size];
                crate::guest::pattern::fill((flow * datagrams + number) as u64, &mut payload);
                match ask(&socket, &payload) {
                    Ok(vm) => {
                        report.answered += 1;
                        match &first {
                            None => *report.flows.entry(vm.clone()).or_default() += 1,
                            Some(f) if *f != vm => report.moved += 1,
                            Some(_) => {}
                        }
                        first.get_or_insert(vm);
                    }
                    Err(e) => {
                        report.lost += 1;
                        note(&mut report.errors, format!("flow {flow}, datagram {number}: {e:#}"));
                    }
                }
            }
        }
        Ok(report)
    })?
}
