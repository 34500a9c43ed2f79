//! Health of targets: probes from this host to the VM's own address, with rise and fall.
//!
//! A target that is new is not used until its checks have succeeded once; one that an earlier daemon left in the
//! maps is not new. What a checker in trouble finds says nothing: [`lbx_common::health`] decides, this module
//! probes. Targets are probed side by side, each at its own pace.

mod command;
mod http;
mod icmp;
mod run;
mod tcp;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lbx_common::health::Outcome;

use crate::config::{Config, HealthCheck, Probe, Service, Target};
use crate::control::resolve::Found;
use crate::host::View;

pub use run::run;

/// One check of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Full name of the target.
    pub target: String,
    /// Its service.
    pub service: String,
    /// The target's address; none if it is not known.
    pub addr: Option<IpAddr>,
    /// The port, for probes that go to one.
    pub port: Option<u16>,
    /// What is tried, how often, how long, how many.
    pub how: HealthCheck,
    /// How often the target has been away: who comes back is looked at anew.
    pub returns: u32,
}

/// A check, and what is known beside it. A change of this starts nothing anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The check.
    pub check: Check,
    /// The verdict before the first probe; none for a new target.
    pub known: Option<bool>,
    /// How this host gets there.
    pub way: Way,
}

/// This host's own part of the way to a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The interface it begins with, if it is known.
    pub link: Option<u32>,
    /// Why nothing can get there.
    pub cut: Option<String>,
}

/// What is known about a target's health.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// Healthy or not, by all of its checks; `None` while there is no verdict.
    pub healthy: Option<bool>,
    /// One for each check.
    pub rows: Vec<Row>,
    /// How often the target had been away when these checks began: what was found before its last return is of
    /// somebody else.
    pub returns: u32,
}

/// What is known from one check.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `tcp`, `http`, `icmp` or `command`.
    pub kind: &'static str,
    /// What is probed, in words.
    pub what: String,
    /// Healthy or not; `None` while there is no verdict.
    pub healthy: Option<bool>,
    /// The last result in words.
    pub detail: String,
    /// The last probe succeeded.
    pub good: bool,
    /// Results of one kind in a row.
    pub in_row: u32,
    /// When the verdict last changed, in seconds since the machine was started.
    pub since: Option<u64>,
    /// How long the last probe took; none if it failed.
    pub took: Option<Duration>,
    /// When the last probe that says something ended.
    pub at: Option<Instant>,
    /// Why failures are not believed yet.
    pub held: Option<String>,
    /// The check cannot be made at all.
    pub impossible: bool,
}

impl Checked {
    /// The reason in words: of the first check that is not well.
    pub fn reason(&self) -> Option<&str> {
        let bad = |row: &&Row| row.healthy != Some(true);
        self.rows.iter().find(bad).or(self.rows.first()).map(|row| row.detail.as_str())
    }
}

/// The checks of a config, with addresses as far as they are known. `known` and `returns`: by full name.
pub fn checks(
    config: &Config,
    found: &[Found],
    view: &View,
    known: impl Fn(&str) -> Option<bool>,
    returns: impl Fn(&str) -> u32,
) -> Vec<Listed> {
    let mut checks = Vec::new();
    for service in &config.services {
        let own = found.iter().filter(|one| one.base.service == service.name);
        for (target, one) in service.targets.iter().zip(own) {
            let (name, addr) = (one.full_name(), address(service, target, one, view));
            for how in &service.health.checks {
                let check = Check {
                    target: name.clone(),
                    service: service.name.clone(),
                    addr,
                    port: how.probe.port().or(target.port).or(service.ports.single()),
                    how: how.clone(),
                    returns: returns(&name),
                };
                let way = addr.map(|addr| way(view, addr)).unwrap_or_default();
                checks.push(Listed { check, known: known(&name), way });
            }
        }
    }
    checks
}

/// The configured address, else the one neighbour of this host that has the target's MAC.
fn address(service: &Service, target: &Target, found: &Found, view: &View) -> Option<IpAddr> {
    let configured = target.address.map(IpAddr::V4).or(target.address6.map(IpAddr::V6));
    configured.or_else(|| {
        let mac = found.base.mac?;
        let known = view.neighbours.iter().filter(|one| one.mac == Some(mac));
        let mut usable = known.map(|one| one.address).filter(|addr| {
            let local = matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
            !local && !service.vips.contains(addr)
        });
        usable.next()
    })
}

/// Which interface leads to an address: by the longest prefix of addresses and of the main routing table. Other
/// tables are not looked at; then the way is unknown, and nothing is said about it.
fn way(view: &View, addr: IpAddr) -> Way {
    const MAIN: u32 = 254;
    let length = |net: IpAddr, prefix: u8| {
        IpNet::new(net, prefix).ok().filter(|net| net.contains(&addr)).map(|net| net.prefix_len())
    };
    let on_link = view.addresses.iter().filter_map(|own| Some((length(own.address, own.prefix)?, own.index)));
    let routed = view.routes.iter().filter(|route| route.table == MAIN).filter_map(|route| {
        let length = match route.destination {
            Some((net, prefix)) => length(net, prefix)?,
            None => 0,
        };
        Some((length, route.index?))
    });
    let best = on_link.chain(routed).max_by_key(|(length, _)| *length);
    let Some(link) = best.and_then(|(_, index)| view.by_index(index)) else { return Way::default() };
    let cut = match (link.up, link.carrier) {
        (false, _) => Some(format!("{} is down", link.name)),
        (true, false) => Some(format!("{} has no carrier", link.name)),
        _ => None,
    };
    Way { link: Some(link.index), cut }
}

impl Check {
    /// What is probed, in words.
    pub fn what(&self) -> String {
        let addr = self.addr.map_or("?".to_owned(), |addr| addr.to_string());
        let to = || match (self.addr, self.port) {
            (Some(addr), Some(port)) => std::net::SocketAddr::new(addr, port).to_string(),
            _ => addr.clone(),
        };
        match &self.how.probe {
            Probe::Tcp { .. } => format!("tcp {}", to()),
            Probe::Http { path, .. } => format!("http {}{path}", to()),
            Probe::Icmp => format!("icmp {addr}"),
            Probe::Command { argv, .. } => format!("command {}", self.fill(argv).join(" ")),
        }
    }

    /// A command line with the placeholders filled in.
    fn fill(&self, argv: &[String]) -> Vec<String> {
        let addr = self.addr.map_or_else(String::new, |addr| addr.to_string());
        let port = self.port.map_or_else(String::new, |port| port.to_string());
        let fill = |word: &String| {
            word.replace("{address}", &addr).replace("{port}", &port).replace("{target}", &self.target)
        };
        argv.iter().map(fill).collect()
    }

    /// Why it cannot be made, if it cannot.
    fn impossible(&self) -> Option<&'static str> {
        if self.how.probe.needs_address() && self.addr.is_none() {
            return Some("its address is not known: give the target an `address`");
        }
        (self.how.probe.needs_port() && self.port.is_none()).then_some("its port is not known")
    }

    /// Probes once; takes at most the timeout, and a little.
    async fn probe(&self) -> (Outcome, String) {
        let (timeout, started) = (self.how.timeout, Instant::now());
        let to = self.addr.zip(self.port).map(|(addr, port)| std::net::SocketAddr::new(addr, port));
        let (outcome, detail) = match (&self.how.probe, to, self.addr) {
            (Probe::Tcp { .. }, Some(to), _) => tcp::probe(to, timeout).await,
            (Probe::Http { path, host, status, body, .. }, Some(to), _) => {
                let ask = http::Ask { path, host: host.as_deref(), status: *status, body: body.as_deref() };
                http::probe(to, &ask, timeout).await
            }
            (Probe::Icmp, _, Some(addr)) => icmp::probe(addr, timeout).await,
            (Probe::Command { argv, .. }, ..) => command::probe(&self.fill(argv), timeout).await,
            _ => (Outcome::Unknown, "it cannot be made".to_owned()),
        };
        match outcome {
            Outcome::Silent if late(started.elapsed(), timeout) => {
                (Outcome::Unknown, format!("this host was too busy to check: {detail}"))
            }
            _ => (outcome, detail),
        }
    }
}

/// Whether so much time has passed that it was the checker that slept.
fn late(took: Duration, timeout: Duration) -> bool {
    took > timeout * 2 + Duration::from_millis(500)
}

/// What an error of this host's own system calls says about a target.
fn judge_error(error: &std::io::Error) -> Outcome {
    match error.raw_os_error() {
        // Descriptors, memory, local ports, rights, or a network this host has no way to: our trouble.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EACCES
            | libc::EPERM
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EAGAIN
            | libc::EAFNOSUPPORT,
        ) => Outcome::Unknown,
        // Nobody resolved the address, or nobody answered at all.
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT) => Outcome::Silent,
        _ => Outcome::Refused,
    }
}

/// The words for a failure.
fn failed(error: &std::io::Error, what: &str) -> (Outcome, String) {
    let outcome = judge_error(error);
    let whose = if outcome == Outcome::Unknown { "this host cannot check" } else { "no connection" };
    (outcome, format!("{whose}: {what}: {error}"))
}

#[cfg(test)]
mod tests;
