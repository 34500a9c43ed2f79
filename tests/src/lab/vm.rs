//! A VM of a lab: a QEMU guest or a stand-in, behind a port of its host's bridge.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::addr::{self, Pair};
use super::client::http;
use super::guest::{self, Boot};
use super::netns::Netns;
use super::process::Process;
use super::qmp::Qmp;
use super::record::Record;
use super::spec::{VmKind, VmSpec};
use super::{Lab, standin, tools};
use crate::guest::announce::mac_text;
use crate::guest::http::CONTROL_PORT;
use crate::guest::params::Params;

/// A VM.
pub struct Vm {
    /// What was asked for.
    pub spec: VmSpec,
    /// Its own address.
    pub addr: Pair,
    /// Its vNIC's MAC.
    pub mac: [u8; 6],
    /// The bridge port it is behind: `tap0`, ... or `vif0`, ...
    pub port: String,
    /// The number of its host.
    pub host: usize,
    /// The namespace of its host.
    pub host_ns: Netns,
    /// A stand-in's own namespace.
    pub ns: Option<Netns>,
    /// Its bridge port on the host it was made on.
    home: (usize, String),
    /// Which of its QEMUs runs: counts up with every migration.
    run: u32,
    params: Params,
    boot: Option<Boot>,
    process: Option<Process>,
    dir: PathBuf,
}

impl Vm {
    /// Makes its bridge port; starts nothing.
    pub(super) fn create(
        lab: &Lab,
        host: usize,
        n: usize,
        spec: VmSpec,
        vips: Vec<IpAddr>,
        boot: Option<Boot>,
    ) -> Result<Self> {
        let host_ns = lab.hosts[host].ns.clone();
        let (addr, mac, mtu) = (addr::vm(host, n + 1), addr::mac(0x01, host, n + 1), lab.spec.mtu);
        let mut params = Params {
            name: spec.name.clone(),
            dev: "eth0".into(),
            addresses: addr.cidrs().to_vec(),
            vips,
            gateways: Vec::new(),
            mtu: Some(mtu),
            http: spec.http.clone(),
            service_ms: spec.service_ms,
            probe: false,
            nested: false,
        };
        let (port, ns) = match spec.kind {
            VmKind::Guest => {
                let port = format!("tap{n}");
                make_tap(&host_ns, &port, spec.queues, mtu)?;
                (port, None)
            }
            VmKind::StandIn => {
                let ns = Netns::create(&lab.record, &spec.name)?;
                let port = format!("vif{n}");
                standin::connect(&host_ns, &ns, &port, mac, mtu)?;
                (port, Some(ns))
            }
        };
        if let Some(vlan) = spec.vlan {
            let how = if spec.tagged { "" } else { " pvid untagged" };
            let add = format!("vlan add dev {port} vid {vlan}{how}");
            tools::bridge(&host_ns, &[format!("vlan del dev {port} vid 1"), add])?;
            if let (true, Some(ns)) = (spec.tagged, &ns) {
                params.dev = format!("eth0.{vlan}");
                let make = format!("link add link eth0 name {} type vlan id {vlan}", params.dev);
                tools::ip(ns, &["link set eth0 up".into(), make])?;
            }
        }
        let dir = lab.record.dir().to_owned();
        let home = (host, port.clone());
        Ok(Self { spec, addr, mac, port, host, host_ns, ns, home, run: 0, params, boot, process: None, dir })
    }

    /// Starts it; if it runs, it is killed first.
    pub fn start(&mut self, record: &Record) -> Result<()> {
        self.process = None;
        self.process = Some(match (&self.ns, &self.boot) {
            (Some(ns), _) => standin::start(record, ns, &self.params)?,
            (None, Some(boot)) => guest::start(record, self, &self.seat(), boot, &self.params, false)?,
            (None, None) => bail!("{}: no kernel to boot", self.spec.name),
        });
        Ok(())
    }

    /// Kills it (`kill -9`): its port loses its carrier or its reader, nothing is said on the wire.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The pid of QEMU, or of the stand-in's server.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where it runs.
    pub fn seat(&self) -> Seat {
        Seat { host: self.host, host_ns: self.host_ns.clone(), port: self.port.clone(), run: self.run }
    }

    /// A seat for its next QEMU on a host, with a tap of its own: the one it was made with, if that is there and not
    /// in use. Makes the tap.
    pub(super) fn next_seat(&self, host: usize, host_ns: &Netns, mtu: u32) -> Result<Seat> {
        let (home, tap) = (&self.home, format!("tap-{}", self.spec.name));
        let port = if host == home.0 && self.port != home.1 { home.1.clone() } else { tap };
        if !host_ns.run(|| crate::guest::net::device_index(&port))?.is_ok_and(|index| index != 0) {
            make_tap(host_ns, &port, self.spec.queues, mtu)?;
        }
        Ok(Seat { host, host_ns: host_ns.clone(), port, run: self.run + 1 })
    }

    /// Starts a QEMU that waits in a seat for the guest to come.
    pub(super) fn expect(&self, record: &Record, seat: &Seat) -> Result<Process> {
        let boot = self.boot.as_ref().filter(|_| self.spec.kind == VmKind::Guest);
        let boot = boot.with_context(|| format!("{} is no QEMU guest", self.spec.name))?;
        guest::start(record, self, seat, boot, &self.params, true)
    }

    /// It runs in this seat from now on; the process it ran in before.
    pub(super) fn sit(&mut self, seat: Seat, process: Process) -> Option<Process> {
        (self.host, self.host_ns, self.port, self.run) = (seat.host, seat.host_ns, seat.port, seat.run);
        self.process.replace(process)
    }

    /// Its MAC as text.
    pub fn mac_text(&self) -> String {
        mac_text(self.mac)
    }

    /// The console's output so far, and QEMU's own.
    pub fn log(&self) -> String {
        let console = std::fs::read(self.console_path()).unwrap_or_default();
        let own = self.process.as_ref().map(Process::log).unwrap_or_default();
        format!("{own}{}", String::from_utf8_lossy(&console))
    }

    /// The file the guest's console goes to.
    pub fn console_path(&self) -> PathBuf {
        self.dir.join(format!("{}.console", self.spec.name))
    }

    /// The QMP socket for tests; lbx has one of its own, [`Vm::qmp_path_for_lbx`].
    pub fn qmp_path(&self) -> PathBuf {
        self.qmp_paths(&self.seat())[0].clone()
    }

    /// The second QMP socket: one socket serves one client.
    pub fn qmp_path_for_lbx(&self) -> PathBuf {
        self.qmp_paths(&self.seat())[1].clone()
    }

    /// Both QMP sockets of its QEMU in a seat: the tests', and lbx's. They depend on the place alone, so that a host's
    /// config can say where they are.
    pub fn qmp_paths(&self, seat: &Seat) -> [PathBuf; 2] {
        let name = &self.spec.name;
        let place = if seat.host != self.home.0 {
            format!("{name}-on{}", seat.host)
        } else if seat.port == self.home.1 {
            name.clone()
        } else {
            format!("{name}-{}", seat.port)
        };
        ["qmp", "qmp2"].map(|kind| self.dir.join(format!("{place}.{kind}")))
    }

    /// Connects to the guest's QMP socket.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.qmp_path())
    }

    /// Its HTTP address in one family.
    pub fn http(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip(family), self.spec.http[0])
    }

    /// Its own address in one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.addr.v4.into(),
            Family::V6 => self.addr.v6.into(),
        }
    }

    /// Posts a verb of [`control`](crate::guest::http::control) to it, such as `stop/80` or `service-time/20`.
    pub fn control(&self, from: &Netns, verb: &str) -> Result<()> {
        let at = SocketAddr::new(self.addr.v4.into(), CONTROL_PORT);
        let answer = from.run(|| http::request(at, "POST", &format!("/control/{verb}"), b""))??;
        if answer.status != 200 {
            bail!("{}: {verb}: {}", self.spec.name, answer.text().trim());
        }
        Ok(())
    }

    /// Its counters (`GET /stats`).
    pub fn stats(&self, from: &Netns) -> Result<serde_json::Value> {
        let at = SocketAddr::new(self.addr.v4.into(), CONTROL_PORT);
        let answer = from.run(|| http::request(at, "GET", "/stats", b""))??;
        serde_json::from_slice(&answer.body).context("/stats")
    }

    /// The numbers of the datagrams that its echo has received: first and last of each run, in the order of arrival.
    pub fn seen(&self, from: &Netns) -> Result<Vec<[u64; 2]>> {
        let at = SocketAddr::new(self.addr.v4.into(), CONTROL_PORT);
        let answer = from.run(|| http::request(at, "GET", "/seen", b""))??;
        serde_json::from_slice(&answer.body).context("/seen")
    }

    /// Waits until it answers with its own name over both families.
    pub fn wait_ready(&self, from: &Netns, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for family in [Family::V4, Family::V6] {
            let at = self.http(family);
            from.run(|| -> Result<()> {
                loop {
                    let answer = http::request_within(at, "GET", "/", b"", Duration::from_millis(500));
                    match answer {
                        Ok(answer) if answer.vm == self.spec.name => return Ok(()),
                        _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                        other => bail!(
                            "{} does not answer on {at}: {:?}\n{}",
                            self.spec.name,
                            other.map(|a| a.vm),
                            self.log()
                        ),
                    }
                }
            })??;
        }
        Ok(())
    }

    /// What it runs under: `tcg`, `kvm`, or `stand-in` for a namespace.
    pub fn accel(&self) -> String {
        match (&self.spec.kind, &self.boot) {
            (VmKind::Guest, Some(boot)) => boot.accel.to_string(),
            _ => "stand-in".into(),
        }
    }

    /// One line about it.
    pub fn describe(&self) -> String {
        format!("{} ({}, {})", self.spec.name, self.accel(), self.port)
    }
}

/// Where a VM runs: one QEMU of it, on a port of a host's bridge.
#[derive(Debug, Clone)]
pub struct Seat {
    /// The number of the host.
    pub host: usize,
    /// Its namespace.
    pub host_ns: Netns,
    /// The tap.
    pub port: String,
    /// Which of the VM's QEMUs: 0 is the one that booted.
    pub run: u32,
}

impl Seat {
    /// The name of the VM's files in this seat: `vm1`, then `vm1-1`, ...
    pub fn name(&self, vm: &str) -> String {
        if self.run == 0 { vm.into() } else { format!("{vm}-{}", self.run) }
    }
}

/// Makes a tap on the bridge of a host.
fn make_tap(host_ns: &Netns, port: &str, queues: u32, mtu: u32) -> Result<()> {
    let queues = if queues > 1 { " multi_queue" } else { "" };
    tools::ip(
        host_ns,
        &[
            format!("tuntap add dev {port} mode tap{queues} vnet_hdr"),
            format!("link set {port} mtu {mtu} master br0 up"),
        ],
    )
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
