//! The lab of the demo with lbx on its host, and the questions the parts ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::addr;
use crate::lab::client::{PerVm, http};
use crate::lab::config::{File, Service, guests};
use crate::lab::{Lab, Lbx, Netns};

/// The service that the VMs answer for themselves (`dsr`), on port 80 of the first VIP.
pub const WEB: &str = "web";
/// The translated service (`nat`), on port 8080 of the second VIP.
pub const API: &str = "api";
/// The service whose weights follow what is measured, on port 80 of the third VIP (`dsr`).
pub const FLEX: &str = "flex";
/// Weights of vm1, vm2, vm3 in the config.
pub const WEIGHTS: [u32; 3] = [100, 200, 300];

/// The lab and the product.
pub struct Stage {
    /// The product. First: its daemon ends before its namespace does.
    pub lbx: Lbx,
    /// The lab.
    pub lab: Lab,
}

impl Stage {
    /// Where clients find the web service: IPv4, then IPv6.
    pub fn web() -> [SocketAddr; 2] {
        addr::vip(0).both().map(|ip| SocketAddr::new(ip, 80))
    }

    /// Where clients find the translated service.
    pub fn api() -> [SocketAddr; 2] {
        addr::vip(1).both().map(|ip| SocketAddr::new(ip, 8080))
    }

    /// Where clients find the service whose weights move, over IPv4.
    pub fn flex() -> SocketAddr {
        SocketAddr::new(addr::vip(2).v4.into(), 80)
    }

    /// The client's namespace.
    pub fn client(&self) -> &Netns {
        &self.lab.client().ns
    }

    /// Every address the client connects from.
    pub fn sources(&self) -> Vec<IpAddr> {
        self.lab.client().sources.iter().flat_map(|s| s.both()).collect()
    }

    /// How many new flows lbx has bound to each VM of a service, from its own map.
    pub fn flows(&self, service: &str) -> Result<PerVm> {
        let rows = self.weights(service)?;
        Ok(rows.into_iter().map(|(vm, row)| (vm, row["flows"].as_u64().unwrap_or(0))).collect())
    }

    /// The weights in force.
    pub fn weights_in_force(&self, service: &str) -> Result<BTreeMap<String, u32>> {
        let rows = self.weights(service)?;
        let weight = |row: &serde_json::Value| row["weight"].as_u64().and_then(|w| u32::try_from(w).ok());
        rows.into_iter().map(|(vm, row)| Ok((vm, weight(&row).context("a row without weight")?))).collect()
    }

    /// A target's weight over its configured one.
    pub fn factor(&self, service: &str, vm: &str) -> Result<f64> {
        let rows = self.weights(service)?;
        let row = rows.get(vm).with_context(|| format!("no {service}/{vm}"))?;
        let of = |name: &str| row[name].as_f64().with_context(|| format!("{name} of {service}/{vm}"));
        Ok(of("weight")? / of("configured")?)
    }

    fn weights(&self, service: &str) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut answer = self.lbx.json(&["weights", "--service", service])?;
        let rows = answer["weights"].as_array_mut().context("no weights in the answer")?;
        let name = |row: &serde_json::Value| row["target"].as_str().map(str::to_owned);
        rows.iter_mut().map(|row| Ok((name(row).context("a row without name")?, row.take()))).collect()
    }

    /// The established flows of a service: client address to VM.
    pub fn established(&self, service: &str) -> Result<BTreeMap<String, String>> {
        let arguments = ["flows", "--service", service, "--state", "established", "--limit", "10000"];
        let answer = self.lbx.json(&arguments)?;
        let rows = answer["flows"].as_array().context("no flows in the answer")?;
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().map(str::to_owned);
        Ok(rows.iter().filter_map(|row| Some((text(row, "client")?, text(row, "target")?))).collect())
    }

    /// Waits until a request to `at` is answered; the VM that did.
    pub fn wait_for(&self, at: SocketAddr) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let limit = Duration::from_millis(500);
            let answer = self.client().run(|| http::request_within(at, "GET", "/", b"", limit))?;
            match answer {
                Ok(answer) if !answer.vm.is_empty() => return Ok(answer.vm),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                other => bail!("{at} is not served: {other:?}"),
            }
        }
    }
}

/// The counters that grew, and by how much.
pub fn growth(before: &PerVm, after: &PerVm) -> PerVm {
    after.iter().map(|(vm, n)| (vm.clone(), n.saturating_sub(before.get(vm).copied().unwrap_or(0)))).collect()
}

/// The config file of the demo.
pub fn config(lab: &Lab) -> String {
    config_with(lab, "", "")
}

/// The same with further keys of `[measure]`, and further lines at its top.
pub fn config_with(lab: &Lab, measure: &str, more: &str) -> String {
    let web = Service::dsr(WEB, addr::vip(0), "tcp", 80, guests(lab, &WEIGHTS));
    let api = Service::nat(API, addr::vip(1), "tcp", 8080, 80, guests(lab, &WEIGHTS));
    let mut flex = Service::dsr(FLEX, addr::vip(2), "tcp", 80, guests(lab, &[100; 3]));
    // What a VM has left itself: on a machine that is busy with other things the host has nothing left for any of them.
    flex.keys = String::from("weights = \"adaptive\"\navailability = \"vm\"");
    // Quicker than it would be by itself: somebody is watching.
    let top = format!("{more}[weights]\nslow = \"1s\"\n[measure]\nresponse = 8\n{measure}\n");
    File { top, ..File::of_guests(vec![web, api, flex]) }.text()
}
