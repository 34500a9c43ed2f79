//! The lab of the arms: four guests of unequal speed, one client, and everybody who could spread its requests.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::open::{Plan, Sent};
use super::watch::{Watch, Weighed};
use super::{NOISY, SERVICE_MS, SLOWER, THROTTLED, WORKERS, capacity};
use crate::lab::addr;
use crate::lab::config::{File, Service, guests};
use crate::lab::offload::Offloads;
use crate::lab::process::Process;
use crate::lab::throttle::Throttle;
use crate::lab::{LabSpec, VmKind, tools};
use crate::scenario::{Scenario, eventually};

mod neighbour;

use neighbour::Neighbour;

/// Who spreads the requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arm {
    /// lbx with the same weight for all.
    Static,
    /// lbx with weights that follow what is measured.
    Adaptive,
    /// lbx, of two guests that with less to do.
    P2c,
    /// The kernel's translation, at random.
    Nft,
    /// A proxy, to the server with the fewest connections.
    Haproxy,
    /// lbx with weights that are what the guests can do.
    Oracle,
}

impl Arm {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Static, Self::Adaptive, Self::P2c, Self::Nft, Self::Haproxy, Self::Oracle];

    /// Its name in tables and claims.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "lbx static",
            Self::Adaptive => "lbx adaptive",
            Self::P2c => "lbx p2c",
            Self::Nft => "nftables random",
            Self::Haproxy => "HAProxy leastconn",
            Self::Oracle => "oracle",
        }
    }

    /// Its name in files, and that of its service.
    pub fn word(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Adaptive => "adaptive",
            Self::P2c => "p2c",
            Self::Nft => "nftables",
            Self::Haproxy => "haproxy",
            Self::Oracle => "oracle",
        }
    }

    /// Whether its weights move.
    pub fn follows(self) -> bool {
        self == Self::Adaptive
    }

    /// Whether it is lbx, and has to find out what the guests can do.
    pub fn balances(self) -> bool {
        matches!(self, Self::Adaptive | Self::P2c)
    }

    fn at(self) -> SocketAddr {
        let (ip, port): (Ipv4Addr, u16) = match self {
            Self::Static => (addr::vip(0).v4, 80),
            Self::Adaptive => (addr::vip(1).v4, 80),
            Self::P2c => (addr::vip(2).v4, 80),
            Self::Oracle => (addr::vip(3).v4, 80),
            Self::Nft => (addr::vip(9).v4, 80),
            Self::Haproxy => (addr::host(0).v4, 8080),
        };
        SocketAddr::new(ip.into(), port)
    }
}

/// Services of lbx: VIPs that the guests hold.
const SERVICES: [Arm; 4] = [Arm::Static, Arm::Adaptive, Arm::P2c, Arm::Oracle];

/// The lab with everything running.
pub struct Place {
    _proxy: Process,
    throttle: Throttle,
    _neighbour: Neighbour,
    scenario: Scenario,
}

impl Place {
    /// Builds it and waits until every arm leads to a guest.
    ///
    /// # Errors
    /// When something does not start.
    pub fn build() -> Result<Self> {
        let mut spec = LabSpec::one_host(SLOWER.len(), VmKind::Guest);
        spec.clients[0].offloads = Offloads::sender(false);
        spec.vips = SERVICES.iter().map(|arm| arm.at().ip()).collect();
        for (vm, slower) in spec.hosts[0].vms.iter_mut().zip(SLOWER) {
            vm.service_ms = SERVICE_MS * slower;
        }
        // The lab asks the guests for their addresses, so its config is made in two steps.
        let mut scenario = Scenario::start(spec, &[])?;
        // A few hundred connections a second: each can be timed.
        let top = String::from("[measure]\nresponse = 1\n");
        let file = File { top, flows: Some(65_536), ..File::of_guests(services(&scenario)) };
        scenario.lbx.push(crate::lab::Lbx::start(&scenario.lab, 0, &file.text())?);
        let proxy = proxy(&scenario)?;
        route(&scenario)?;
        let pid = |vm: usize| scenario.lab.vms[vm].pid().context("a guest without a process");
        let throttle = Throttle::start(&scenario.lab.record, "slow", pid(SLOWER.len() - 1)?, THROTTLED)?;
        let neighbour = Neighbour::start(pid(NOISY.0)?, NOISY.1)?;
        let place = Self { _proxy: proxy, throttle, _neighbour: neighbour, scenario };
        place.limit(WORKERS)?;
        for arm in Arm::ALL {
            place.wait(arm)?;
        }
        Ok(place)
    }

    /// How the slow guest is throttled.
    pub fn how_throttled(&self) -> &'static str {
        self.throttle.how()
    }

    /// Sends the requests through an arm. What is left over of them afterwards is let go.
    ///
    /// # Errors
    /// When the client, a guest or the maps fail.
    pub fn load(&self, arm: Arm, plan: &Plan, limit: Duration) -> Result<(Vec<Sent>, Vec<Weighed>)> {
        let watch = arm.follows().then(|| {
            let name = |n: usize| format!("{}/vm{}", arm.word(), n + 1);
            Watch::start(&self.scenario.lbx().instance, (0..SLOWER.len()).map(name).collect())
        });
        let watch = watch.transpose()?;
        let sent = self.send(arm, plan, limit);
        let weighed = watch.map(Watch::seen).transpose()?.unwrap_or_default();
        self.rest()?;
        Ok((sent?, weighed))
    }

    fn send(&self, arm: Arm, plan: &Plan, limit: Duration) -> Result<Vec<Sent>> {
        if arm == Arm::Nft {
            self.translate(true)?;
        }
        // The way of nftables leads over the host, by a route of its own.
        let sources = if arm == Arm::Nft { Vec::new() } else { self.sources() };
        let sent = plan.run(self.scenario.client(), arm.at(), &sources, limit);
        if arm == Arm::Nft {
            self.translate(false)?;
        }
        sent.with_context(|| arm.name())
    }

    fn sources(&self) -> Vec<IpAddr> {
        self.scenario.sources().into_iter().filter(IpAddr::is_ipv4).collect()
    }

    /// Lets go what waits in the guests, so that the next arm begins with nothing.
    fn rest(&self) -> Result<()> {
        self.limit(0)?;
        let idle = || {
            let busy = self.scenario.lab.vms.iter().map(|vm| {
                let stats = vm.stats(self.scenario.client())?;
                stats["in_service"].as_u64().context("in_service")
            });
            Ok(busy.sum::<Result<u64>>()? == 0)
        };
        ensure!(eventually(Duration::from_secs(30), idle)?, "the guests are not done with their requests");
        self.limit(WORKERS)
    }

    fn limit(&self, workers: u64) -> Result<()> {
        let each = |vm: &crate::lab::Vm| vm.control(self.scenario.client(), &format!("slots/{workers}"));
        self.scenario.lab.vms.iter().try_for_each(each)
    }

    fn wait(&self, arm: Arm) -> Result<()> {
        let one = Plan(vec![Duration::ZERO]);
        let answers =
            || Ok(self.send(arm, &one, Duration::from_secs(1))?.iter().all(|sent| sent.took.is_some()));
        ensure!(
            eventually(Duration::from_secs(20), answers)?,
            "{} leads nowhere; {}",
            arm.name(),
            self.scenario.story()
        );
        Ok(())
    }

    /// Puts the kernel's translation in force, or takes it away.
    fn translate(&self, on: bool) -> Result<()> {
        let ns = &self.scenario.lab.host().ns;
        if !on {
            return tools::run(ns.command("nft").arg("delete table ip lb")).map(|_| ());
        }
        let targets: Vec<_> = (0..SLOWER.len()).map(|n| format!("{n} : {}", addr::vm(0, n + 1).v4)).collect();
        let vip = Arm::Nft.at().ip();
        // Guests answer to the host, as the client is on their own segment.
        let rules = format!(
            "table ip lb {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n\
             ip daddr {vip} tcp dport 80 dnat to numgen random mod {} map {{ {} }}\n}}\n\
             chain post {{\ntype nat hook postrouting priority srcnat;\nct status dnat masquerade\n}}\n}}\n",
            SLOWER.len(),
            targets.join(", ")
        );
        tools::run(ns.command("nft").arg(rules)).map(|_| ())
    }
}

fn services(scenario: &Scenario) -> Vec<Service> {
    let equal = [100; SLOWER.len()];
    let known: Vec<u32> = (0..SLOWER.len()).map(|n| capacity(n) as u32).collect();
    let service = |arm: &Arm| {
        let weights = if *arm == Arm::Oracle { known.as_slice() } else { &equal[..] };
        let mut service = Service::dsr(arm.word(), addr::vip(0), "tcp", 80, guests(&scenario.lab, weights));
        service.vips = vec![arm.at().ip()];
        service.keys = match arm {
            Arm::Adaptive => "weights = \"adaptive\"".into(),
            Arm::P2c => "algorithm = \"p2c\"".into(),
            _ => String::new(),
        };
        service
    };
    SERVICES.iter().map(service).collect()
}

/// HAProxy on the host.
fn proxy(scenario: &Scenario) -> Result<Process> {
    let config = scenario.lab.record.dir().join("haproxy.cfg");
    let server = |n| format!("  server s{n} {}:80", addr::vm(0, n + 1).v4);
    let servers: Vec<_> = (0..SLOWER.len()).map(server).collect();
    fs::write(
        &config,
        format!(
            "global\n  maxconn 8192\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  \
             timeout server 60s\nlisten web\n  bind {}\n  balance leastconn\n{}\n",
            Arm::Haproxy.at(),
            servers.join("\n")
        ),
    )?;
    let mut command = scenario.lab.host().ns.command("haproxy");
    command.arg("-db").arg("-f").arg(config);
    Process::spawn(&scenario.lab.record, "haproxy", command)
}

/// The way of nftables leads over the host as a router.
fn route(scenario: &Scenario) -> Result<()> {
    scenario.lab.host().ns.sysctls(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/br0/send_redirects", "0"),
    ])?;
    let line = format!("route add {}/32 via {}", Arm::Nft.at().ip(), addr::host(0).v4);
    tools::ip(scenario.client(), &[line])
}
