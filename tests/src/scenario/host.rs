//! A lab of stand-ins with lbx on its host, and what the CLI tests ask of both.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::lab::client::http;
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, Netns, VmKind, addr};
use serde_json::Value;

/// Both address families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The product and its lab. The product ends first.
pub struct Host {
    /// lbx on the first host.
    pub lbx: Lbx,
    /// The lab.
    pub lab: Lab,
}

/// One switch, one `dsr` service on the first VIP and one `nat` service on the second, over the same stand-ins.
pub fn config(stand_ins: usize) -> String {
    let targets = |port: &str| -> String {
        let one = |n: usize| {
            let own = addr::vm(0, n + 1);
            format!(
                "[[service.target]]\nnic = \"vif{n}\"\naddress = \"{}\"\naddress6 = \"{}\"\n{port}\n",
                own.v4, own.v6
            )
        };
        (0..stand_ins).map(one).collect()
    };
    format!("{}{}{}", head(), service("web", 0, "dsr", 80) + &targets(""), {
        service("api", 1, "nat", 8080) + &targets("port = 80")
    })
}

/// What comes before the services.
pub fn head() -> &'static str {
    "[limits]\nflows = 65536\n[[switch]]\nname = \"br0\"\nuplinks = [\"up0\"]\n"
}

/// A service without its targets.
pub fn service(name: &str, vip: usize, forward: &str, port: u16) -> String {
    let vip = addr::vip(vip);
    format!(
        "[[service]]\nname = \"{name}\"\nswitch = \"br0\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\n\
         port = {port}\nforward = \"{forward}\"\nanswer = \"probe\"\n",
        vip.v4, vip.v6
    )
}

impl Host {
    /// The lab, and the config written; nothing runs.
    pub fn idle(stand_ins: usize) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces");
        let lab = Lab::start(LabSpec::one_host(stand_ins, VmKind::StandIn)).unwrap();
        let lbx = Lbx::new(&lab, 0, &config(stand_ins)).unwrap();
        Self { lbx, lab }
    }

    /// With the daemon, and the VIPs served.
    pub fn running(stand_ins: usize) -> Self {
        let mut host = Self::idle(stand_ins);
        host.lbx.run().unwrap();
        host.wait_served();
        host
    }

    /// Waits until both services answer in both families.
    pub fn wait_served(&self) {
        let limit = Instant::now() + Duration::from_secs(20);
        for (vip, port) in [(0, 80), (1, 8080)] {
            for family in FAMILIES {
                while self.get(vip, port, family).is_none() {
                    assert!(Instant::now() < limit, "VIP {vip} {family:?} is not served: {}", self.lbx.log());
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// The host's namespace.
    pub fn ns(&self) -> &Netns {
        &self.lab.host().ns
    }

    /// Who answers a request, if anybody does soon.
    pub fn get(&self, vip: usize, port: u16, family: Family) -> Option<String> {
        let to = (ip(vip, family), port).into();
        let limit = Duration::from_millis(400);
        let answer = self.lab.client().ns.run(|| http::request_within(to, "GET", "/", b"", limit)).unwrap();
        answer.ok().map(|answer| answer.vm).filter(|vm| !vm.is_empty())
    }

    /// Runs a verb: exit code, standard output, standard error.
    pub fn verb(&self, words: &[&str]) -> (i32, String, String) {
        said(&self.lbx.output(words).unwrap())
    }

    /// Runs a verb that has to succeed, with `--json`.
    pub fn json(&self, words: &[&str]) -> Value {
        let value = self.lbx.json(words).unwrap();
        assert_eq!(value["schema"], 1, "{words:?}: {value}");
        value
    }

    /// A reason's counter.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.json(&["stats", "--all"]);
        let row = stats["reasons"].as_array().unwrap().iter().find(|row| row["name"] == reason).cloned();
        row.unwrap_or_else(|| panic!("no reason {reason}"))["count"].as_u64().unwrap()
    }

    /// Runs a tool in the host's namespace.
    pub fn tool(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.ns().command(words.next().unwrap());
        let out = command.args(words).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// Exit code and both outputs.
pub fn said(out: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

/// The address of a VIP.
pub fn ip(vip: usize, family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => addr::vip(vip).v4.into(),
        Family::V6 => addr::vip(vip).v6.into(),
    }
}

/// No line is wider than a terminal of 100 columns.
pub fn narrow(words: &[&str], text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{words:?}: {} columns: {line}", line.chars().count());
    }
}
