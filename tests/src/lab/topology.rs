//! Building a lab from its spec, and finding one's way in it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::addr::{self, Pair};
use super::netns::Netns;
use super::record::Record;
use super::spec::{ClientSpec, HostSpec, LabSpec, VmKind};
use super::vm::Vm;
use super::{accel, cleanup, guest, image, tools};
use crate::guest::announce::mac_text;

/// A lab that is up. Dropping it removes everything.
pub struct Lab {
    /// Where everything it made is noted.
    pub record: Record,
    /// The spec it was built from.
    pub spec: LabSpec,
    /// The upstream switch: bridge `sw0` with ports `c0`.. (clients) and `h0`.. (hosts).
    pub net: Netns,
    /// The clients.
    pub clients: Vec<Client>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// All VMs of all hosts, in order.
    pub vms: Vec<Vm>,
}

/// A client.
pub struct Client {
    /// Its namespace, with device `eth0`.
    pub ns: Netns,
    /// The device with the addresses: `eth0`, or `eth0.VLAN`.
    pub dev: String,
    /// Its own address.
    pub addr: Pair,
    /// More addresses to connect from.
    pub sources: Vec<Pair>,
}

/// A host.
pub struct Host {
    /// Its namespace, with bridge `br0` and uplink `up0`.
    pub ns: Netns,
    /// The bridge's address.
    pub addr: Pair,
    /// The value of lbx's `--instance` on this host.
    pub instance: String,
}

impl Lab {
    /// Removes what dead labs left behind, builds the lab, starts its VMs and waits until they answer.
    pub fn start(spec: LabSpec) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a lab needs root (namespaces, taps): run the finished binary with sudo");
        }
        let lab = Self::build(spec)?;
        lab.wait_ready()?;
        Ok(lab)
    }

    /// Like [`Lab::start`], without waiting for the VMs.
    pub fn build(spec: LabSpec) -> Result<Self> {
        cleanup::gc()?;
        let record = Record::create()?;
        match Self::build_in(&record, spec) {
            Ok(lab) => Ok(lab),
            Err(e) => {
                cleanup::remove(record.dir())?;
                Err(e)
            }
        }
    }

    fn build_in(record: &Record, spec: LabSpec) -> Result<Self> {
        if spec.hosts.iter().any(|h| h.vlan_filtering) && !bridges_filter_vlans()? {
            bail!("{NO_VLAN_FILTERING}");
        }
        let net = Netns::create(record, "net")?;
        tools::ip(
            &net,
            &[
                "link add sw0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".into(),
                "link set sw0 up".into(),
            ],
        )?;
        let number = |name: &str, k: usize| if k == 0 { name.into() } else { format!("{name}{}", k + 1) };
        let mut clients = Vec::new();
        for (k, client) in spec.clients.iter().enumerate() {
            let ns = Netns::create(record, &number("client", k))?;
            clients.push(add_client(&net, ns, k, client, spec.mtu)?);
        }
        let mut hosts = Vec::new();
        for (h, host) in spec.hosts.iter().enumerate() {
            let ns = Netns::create(record, &number("host", h))?;
            let suffix = if h == 0 { String::new() } else { format!("-host{}", h + 1) };
            add_host(&net, &ns, h, host, &spec)?;
            hosts.push(Host { ns, addr: addr::host(h), instance: format!("{}{suffix}", record.id()) });
        }
        let mut lab = Self { record: record.clone(), net, clients, hosts, vms: Vec::new(), spec };
        lab.add_vms()?;
        Ok(lab)
    }

    fn add_vms(&mut self) -> Result<()> {
        let is_guest = |vm: &super::VmSpec| vm.kind == VmKind::Guest;
        let boot = if self.spec.hosts.iter().flat_map(|h| &h.vms).any(is_guest) {
            let image = image::ensure()?;
            let initramfs = guest::write_initramfs(&image, self.record.dir())?;
            let accel = accel::choose(&self.record, &image, &initramfs)?;
            Some(guest::Boot { kernel: image.kernel, initramfs, accel })
        } else {
            None
        };
        for (h, host) in self.spec.hosts.clone().into_iter().enumerate() {
            for (n, spec) in host.vms.into_iter().enumerate() {
                let vips = spec.vips.clone().unwrap_or_else(|| self.spec.vips.clone());
                let vm = Vm::create(self, h, n, spec, vips, boot.clone())?;
                self.vms.push(vm);
            }
        }
        // QEMU starts in milliseconds; the guests boot side by side.
        let record = self.record.clone();
        self.vms.iter_mut().filter(|vm| vm.spec.start).try_for_each(|vm| vm.start(&record))
    }

    /// Waits until every started VM answers HTTP on its own addresses, both families, seen from the first client
    /// of its VLAN.
    pub fn wait_ready(&self) -> Result<()> {
        self.vms.iter().filter(|vm| vm.spec.start).try_for_each(|vm| self.wait_vm(vm, Duration::from_mins(2)))
    }

    /// Waits until one VM answers.
    pub fn wait_vm(&self, vm: &Vm, limit: Duration) -> Result<()> {
        let ours = self.spec.clients.iter().position(|c| c.vlan == vm.spec.vlan);
        let Some(client) = ours else { return Ok(()) };
        vm.wait_ready(&self.clients[client].ns, limit)
    }

    /// The lab's id.
    pub fn id(&self) -> &str {
        self.record.id()
    }

    /// The first client.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// The first host.
    pub fn host(&self) -> &Host {
        &self.hosts[0]
    }

    /// A VM by its name.
    pub fn vm(&self, name: &str) -> Result<&Vm> {
        self.vms.iter().find(|vm| vm.spec.name == name).with_context(|| format!("no VM {name}"))
    }

    /// A VM by its name, to stop or start it.
    pub fn vm_mut(&mut self, name: &str) -> Result<&mut Vm> {
        self.vms.iter_mut().find(|vm| vm.spec.name == name).with_context(|| format!("no VM {name}"))
    }

    /// Starts (or restarts) a VM and waits until it answers.
    pub fn start_vm(&mut self, name: &str) -> Result<()> {
        let record = self.record.clone();
        self.vm_mut(name)?.start(&record)?;
        self.wait_vm(self.vm(name)?, Duration::from_mins(2))
    }

    /// The upstream switch's forwarding table: which port (`c0`, `h0`, ...) it learnt a MAC (`02:77:..`) on.
    pub fn upstream_port_of(&self, mac: &str) -> Result<Option<String>> {
        Ok(self.upstream_fdb()?.into_iter().find(|(m, _)| m == mac).map(|(_, port)| port))
    }

    /// All learnt (MAC, port) pairs of the upstream switch.
    pub fn upstream_fdb(&self) -> Result<Vec<(String, String)>> {
        let text =
            tools::run(self.net.command("bridge").args(["-j", "fdb", "show", "br", "sw0", "dynamic"]))?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        let text = |row: &serde_json::Value, key: &str| Some(row[key].as_str()?.to_owned());
        Ok(rows.iter().filter_map(|row| Some((text(row, "mac")?, text(row, "ifname")?))).collect())
    }

    /// The shell lines with which a person looks around.
    pub fn guide(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("lab {} (record {})\n", self.id(), self.record.dir().display());
        let mut line = |what: &str, ns: &Netns| {
            let _ = writeln!(out, "  {what:<28} sudo nsenter --net={} bash", ns.path().display());
        };
        for client in &self.clients {
            line(&format!("client {}", client.addr.v4), &client.ns);
        }
        line("upstream switch (sw0)", &self.net);
        for host in &self.hosts {
            line(&format!("host {} (br0, up0, tap*)", host.addr.v4), &host.ns);
        }
        for vm in &self.vms {
            let _ = writeln!(out, "  {:<28} http://{}/  http://[{}]/", vm.describe(), vm.addr.v4, vm.addr.v6);
        }
        let vips: Vec<_> = self.spec.vips.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "  VIPs on the VMs' lo: {}", vips.join(", "));
        out
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The VMs' processes end first: they hold taps open.
        self.vms.clear();
        if let Err(e) = cleanup::remove(self.record.dir()) {
            eprintln!("lab: {e:#}");
        }
    }
}

/// The error of a lab whose spec asks for VLAN filtering where the kernel has none.
pub const NO_VLAN_FILTERING: &str =
    "this kernel's bridges cannot filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)";

/// Whether this kernel's bridges can filter VLANs: found out by asking for one in a namespace of no name.
pub fn bridges_filter_vlans() -> Result<bool> {
    let made = std::thread::spawn(|| -> Result<bool> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .context("unshare(CLONE_NEWNET): are you root?")?;
        let arguments = ["link", "add", "probe0", "type", "bridge", "vlan_filtering", "1"];
        Ok(Command::new("ip").args(arguments).output()?.status.success())
    });
    made.join().map_err(|_| anyhow!("the thread inside a namespace panicked"))?
}

fn add_client(net: &Netns, ns: Netns, k: usize, spec: &ClientSpec, mtu: u32) -> Result<Client> {
    let mac = mac_text(addr::mac(0x0c, 0, k));
    tools::ip(
        net,
        &[
            format!(
                "link add c{k} mtu {mtu} type veth peer name eth0 mtu {mtu} address {mac} netns {}",
                ns.name()
            ),
            format!("link set c{k} master sw0 up"),
        ],
    )?;
    let dev = spec.vlan.map_or_else(|| "eth0".to_owned(), |vlan| format!("eth0.{vlan}"));
    let mut lines = vec!["link set eth0 up".into()];
    if let Some(vlan) = spec.vlan {
        lines.push(format!("link add link eth0 name {dev} type vlan id {vlan}"));
        lines.push(format!("link set {dev} up"));
    }
    let sources: Vec<_> = (0..spec.sources).map(|s| addr::source(k, s)).collect();
    let own = addr::client(k);
    lines.extend(own.cidrs().map(|cidr| address(&dev, cidr)));
    for cidr in sources.iter().flat_map(|s| s.cidrs()) {
        // IPv6 would choose the newest address; a deprecated one is used only by who binds to it.
        let deprecated = if cidr.addr.is_ipv6() { " preferred_lft 0" } else { "" };
        lines.push(format!("{}{deprecated}", address(&dev, cidr)));
    }
    spec.offloads.apply(&ns, "eth0")?;
    ns.sysctls(&[
        // A load test opens tens of thousands of connections, one after the other.
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        ("net/ipv4/tcp_tw_reuse", "1"),
        ("net/ipv4/tcp_syn_retries", "4"),
    ])?;
    tools::ip(&ns, &lines)?;
    Ok(Client { ns, dev, addr: own, sources })
}

fn add_host(net: &Netns, ns: &Netns, h: usize, spec: &HostSpec, lab: &LabSpec) -> Result<()> {
    let (mtu, uplink, bridge) = (lab.mtu, mac_text(addr::mac(0x0a, h, 0)), mac_text(addr::mac(0x0b, h, 0)));
    tools::ip(
        net,
        &[
            format!(
                "link add h{h} mtu {mtu} type veth peer name up0 mtu {mtu} address {uplink} netns {}",
                ns.name()
            ),
            format!("link set h{h} master sw0 up"),
        ],
    )?;
    lab.wire.apply(net, &format!("h{h}"))?;
    spec.offloads.apply(ns, "up0")?;
    // A kernel without VLAN filtering refuses the word even with 0.
    let filtering = if spec.vlan_filtering { " vlan_filtering 1" } else { "" };
    let mut lines = vec![
        format!(
            "link add br0 mtu {mtu} address {bridge} type bridge stp_state 0 forward_delay 0 \
             mcast_snooping 0{filtering}"
        ),
        "link set up0 master br0 up".into(),
        "link set br0 up".into(),
    ];
    if spec.address {
        lines.extend(addr::host(h).cidrs().map(|cidr| address("br0", cidr)));
    }
    tools::ip(ns, &lines)?;
    let vlans: Vec<_> = spec.uplink_vlans.iter().map(|vlan| format!("vlan add dev up0 vid {vlan}")).collect();
    tools::bridge(ns, &vlans)
}

fn address(dev: &str, cidr: crate::guest::params::Cidr) -> String {
    let nodad = if cidr.addr.is_ipv6() { " nodad" } else { "" };
    format!("addr add {}/{} dev {dev}{nodad}", cidr.addr, cidr.prefix)
}
