//! Scenarios for tests in namespaces: a lab of stand-ins with the product running on its hosts.
//!
//! A [`File`] is written as lbx reads it; a [`Scenario`] is the lab, one [`Lbx`] per host, and the ways
//! tests look at them. [`sniff`] sees every frame on a link, [`errors`] what ICMP told a socket, [`states`] what the kernel makes of a target.

pub mod errors;
pub mod foreign;
pub mod host;
pub mod peers;
pub mod place;
pub mod sniff;
pub mod states;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::guest::stats;
use crate::lab::client::http;
use crate::lab::config::File;
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, Netns, addr};

/// Both address families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A lab with the product on every host.
pub struct Scenario {
    /// The product, in the order of the hosts. First, because its daemons end before their namespaces do.
    pub lbx: Vec<Lbx>,
    /// The lab.
    pub lab: Lab,
}

impl Scenario {
    /// Builds the lab and starts the product with one file per host; waits for nothing but the daemons.
    pub fn start(spec: LabSpec, files: &[File]) -> Result<Self> {
        let lab = Lab::start(spec)?;
        let mut lbx = Vec::new();
        for (host, file) in files.iter().enumerate() {
            lbx.push(Lbx::start(&lab, host, &file.text())?);
        }
        Ok(Self { lbx, lab })
    }

    /// The product on the first host.
    pub fn lbx(&self) -> &Lbx {
        &self.lbx[0]
    }

    /// The first client's namespace.
    pub fn client(&self) -> &Netns {
        &self.lab.client().ns
    }

    /// The client's further addresses, both families.
    pub fn sources(&self) -> Vec<IpAddr> {
        self.lab.client().sources.iter().flat_map(|s| s.both()).collect()
    }

    /// Waits until `GET /` on `at` is answered by one of the VMs.
    pub fn wait_for(&self, at: SocketAddr) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let answer = self.get(at, Duration::from_millis(300));
            match answer {
                Ok(vm) if !vm.is_empty() => return Ok(vm),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                other => bail!("{at} is not served ({other:?}); {}", self.story()),
            }
        }
    }

    /// One request on a connection of its own; the VM that answered.
    pub fn get(&self, at: SocketAddr, limit: Duration) -> Result<String> {
        let answer = self.client().run(|| http::request_within(at, "GET", "/", b"", limit))??;
        Ok(answer.vm)
    }

    /// A reason's counter on a host, from the maps (works without the daemon). A reason never counted is 0.
    pub fn count(&self, host: usize, reason: &str) -> Result<u64> {
        let stats = self.lbx[host].json(&["stats", "--all"])?;
        let rows = stats["reasons"].as_array().context("no `reasons` in the stats")?;
        let row = rows.iter().find(|row| row["name"] == reason);
        Ok(row.and_then(|row| row["count"].as_u64()).unwrap_or(0))
    }

    /// One target's row of `lbx targets` on a host, by its full name.
    pub fn target(&self, host: usize, name: &str) -> Result<serde_json::Value> {
        let all = self.lbx[host].json(&["targets"])?;
        let rows = all["targets"].as_array().context("no `targets`")?;
        rows.iter().find(|row| row["name"] == name).cloned().with_context(|| format!("no {name} in {all}"))
    }

    /// Sums of the checksum error counters of the client and of every stand-in.
    pub fn checksum_errors(&self) -> Result<BTreeMap<String, u64>> {
        let count = |ns: &Netns| ns.run(|| stats::checksum_errors(&stats::counters()));
        let mut all = BTreeMap::from([("client".to_owned(), count(self.client())?)]);
        for vm in &self.lab.vms {
            let ns = vm.ns.as_ref().context("only stand-ins have a namespace")?;
            all.insert(vm.spec.name.clone(), count(ns)?);
        }
        Ok(all)
    }

    /// What the product says about itself: its log and its counters, for the message of a failed test.
    pub fn story(&self) -> String {
        let tell = |lbx: &Lbx| {
            let say = |words: &[&str]| lbx.cli(words).unwrap_or_else(|error| format!("{error:#}"));
            let (targets, stats) = (say(&["targets"]), say(&["stats"]));
            format!("log of {}:\n{}\n{targets}\n{stats}", lbx.instance, lbx.log())
        };
        self.lbx.iter().map(tell).collect::<Vec<_>>().join("\n")
    }
}

/// The address of VIP `k` in a family.
pub fn vip(k: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => addr::vip(k).v4.into(),
        Family::V6 => addr::vip(k).v6.into(),
    }
}

/// Refuses to go on without root: a test that cannot run must not pass.
pub fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces");
}

/// Waits until something holds.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
