//! The lab that the ways lead through: one client, one host, three servers.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Load;
use super::wrk::{self, Answer};
use crate::lab::addr::{self, Pair};
use crate::lab::config::{File, Service, stand_ins};
use crate::lab::process::Process;
use crate::lab::{LabSpec, VmKind, tools};
use crate::scenario::{Scenario, eventually};

/// How requests get to the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To one server's own address.
    Direct,
    /// lbx, MACs only.
    Dsr,
    /// lbx, addresses and ports.
    Nat,
    /// The kernel's translation.
    Nft,
    /// A proxy.
    Haproxy,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Dsr, Self::Nat, Self::Nft, Self::Haproxy];

    /// Its name in tables and claims.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dsr => "lbx dsr",
            Self::Nat => "lbx nat",
            Self::Nft => "nftables",
            Self::Haproxy => "HAProxy",
        }
    }

    fn at(self) -> (Ipv4Addr, u16) {
        match self {
            Self::Direct => (addr::vm(0, 1).v4, PORT),
            Self::Dsr => (addr::vip(0).v4, PORT),
            Self::Nat => (addr::vip(1).v4, 80),
            Self::Nft => (addr::vip(2).v4, 80),
            Self::Haproxy => (addr::host(0).v4, 8080),
        }
    }
}

/// Where the servers listen.
const PORT: u16 = 8000;
/// Servers.
const SERVERS: usize = 3;
/// Bytes of a body.
const BODY: usize = 10 << 20;

/// The lab with everything running.
pub struct Place {
    // Before the namespaces they run in.
    _servers: Vec<Process>,
    _proxy: Process,
    scenario: Scenario,
}

impl Place {
    /// Builds it and waits until every way leads to a server.
    pub fn build() -> Result<Self> {
        let targets = || stand_ins(SERVERS);
        let services = vec![
            Service::dsr("web", addr::vip(0), "tcp", PORT, targets()),
            Service::nat("api", addr::vip(1), "tcp", 80, PORT, targets()),
        ];
        let file = File::new(services).xdp("native");
        let scenario = Scenario::start(LabSpec::one_host(SERVERS, VmKind::StandIn), &[file])?;
        let dir = scenario.lab.record.dir().to_owned();
        fs::write(dir.join("body"), vec![0x2a; BODY])?;
        let servers = (0..SERVERS).map(|n| server(&scenario, &dir, n)).collect::<Result<Vec<_>>>()?;
        let proxy = proxy(&scenario, &dir)?;
        route(&scenario)?;
        let place = Self { _servers: servers, _proxy: proxy, scenario };
        for way in Way::ALL {
            place.wait(way)?;
        }
        Ok(place)
    }

    fn wait(&self, way: Way) -> Result<()> {
        let answers = || Ok(self.measure(way, Load::KeepAlive, Duration::from_millis(100)).is_ok());
        ensure!(
            eventually(Duration::from_secs(15), answers)?,
            "{} leads nowhere; {}",
            way.name(),
            self.scenario.story()
        );
        Ok(())
    }

    /// Loads one way for this long.
    pub fn measure(&self, way: Way, load: Load, time: Duration) -> Result<Answer> {
        if way == Way::Nft {
            self.translate(true)?;
        }
        let (address, port) = way.at();
        let answer = wrk::run(self.scenario.client(), &format!("http://{address}:{port}"), load, time);
        if way == Way::Nft {
            // Without rules the kernel tracks no connections: the others do not pay for it.
            self.translate(false)?;
        }
        answer.with_context(|| way.name())
    }

    /// Puts the kernel's translation in force, or takes it away.
    fn translate(&self, on: bool) -> Result<()> {
        let ns = &self.scenario.lab.host().ns;
        if !on {
            return tools::run(ns.command("nft").arg("delete table ip lb")).map(|_| ());
        }
        let targets: Vec<_> =
            (0..SERVERS).map(|n| format!("{n} : {} . {PORT}", addr::vm(0, n + 1).v4)).collect();
        let rules = format!(
            "table ip lb {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n\
             ip daddr {} tcp dport 80 dnat ip addr . port to numgen inc mod {SERVERS} map {{ {} }}\n}}\n}}\n",
            addr::vip(2).v4,
            targets.join(", ")
        );
        tools::run(ns.command("nft").arg(rules))?;
        // A connection that is over makes room at once: rounds follow each other closely.
        ns.sysctls(&[("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")])
    }
}

/// An nginx in stand-in `n`.
fn server(scenario: &Scenario, dir: &Path, n: usize) -> Result<Process> {
    let ns = scenario.lab.vms[n].ns.as_ref().context("a stand-in has a namespace")?;
    let (root, config) = (dir.display(), dir.join(format!("nginx{n}.conf")));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {root}/nginx{n}-{kind};\n"))
        .concat();
    fs::write(
        &config,
        format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {root}/nginx{n}.pid;\nerror_log stderr;\n\
             events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\n\
             keepalive_requests 1000000000;\nopen_file_cache max=10;\n{temporary}\
             server {{ listen {PORT} backlog=4096; root {root};\n\
             location = / {{ return 200 \"ok\\n\"; }}\n}}\n}}\n"
        ),
    )?;
    let mut command = ns.command("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(config);
    Process::spawn(&scenario.lab.record, &format!("nginx{n}"), command)
}

/// HAProxy on the host.
fn proxy(scenario: &Scenario, dir: &Path) -> Result<Process> {
    let config = dir.join("haproxy.cfg");
    let servers: Vec<_> =
        (0..SERVERS).map(|n| format!("  server s{n} {}:{PORT}", addr::vm(0, n + 1).v4)).collect();
    let servers = servers.join("\n");
    fs::write(
        &config,
        format!(
            "global\n  maxconn 8192\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\nlisten web\n  bind {}:8080\n  balance roundrobin\n{servers}\n",
            addr::host(0).v4
        ),
    )?;
    let mut command = scenario.lab.host().ns.command("haproxy");
    command.arg("-db").arg("-f").arg(config);
    Process::spawn(&scenario.lab.record, "haproxy", command)
}

/// The way of nftables leads over the host as a router, in both directions, with a client address of its own: what
/// goes to the client's other addresses takes the bridge. The direct way has one of its own too: to a server its
/// connections look like those of nat, and one in TIME-WAIT would make a new one with the same ports wait for a second.
fn route(scenario: &Scenario) -> Result<()> {
    let (host, vip): (Pair, Pair) = (addr::host(0), addr::vip(2));
    let client = scenario.lab.client();
    let [source, direct, ..] = client.sources[..] else { bail!("the client has too few addresses") };
    let (source, direct) = (source.v4, direct.v4);
    scenario.lab.host().ns.sysctls(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/br0/send_redirects", "0"),
    ])?;
    tools::ip(
        &client.ns,
        &[
            format!("route add {}/32 via {} src {source}", vip.v4, host.v4),
            format!("route add {}/32 dev {} src {direct}", Way::Direct.at().0, client.dev),
        ],
    )?;
    for vm in &scenario.lab.vms {
        let ns = vm.ns.as_ref().context("a stand-in has a namespace")?;
        tools::ip(ns, &[format!("route add {source}/32 via {}", host.v4)])?;
    }
    Ok(())
}
