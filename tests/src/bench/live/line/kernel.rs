//! What the kernel itself forwards with, on the same topology: a bridge, and nftables.

use anyhow::Result;

use super::{index, ip};
use crate::bpf::world::{SWITCH_MAC, VIP4};
use crate::guest::announce::mac_text;
use crate::lab::record::Record;
use crate::lab::{Netns, cleanup, tools};

/// The MAC behind the bridge.
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 3, 1];

/// The lines of the kernel, each in a namespace of its own. Both ends are in the calling thread's.
pub struct Kernel {
    record: Record,
    names: [&'static str; 3],
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Err(e) = cleanup::remove(self.record.dir()) {
            eprintln!("lab: {e:#}");
        }
    }
}

impl Kernel {
    /// Builds them.
    pub fn build() -> Result<Self> {
        let kernel = Self { record: Record::create()?, names: ["kb", "kn", "kj"] };
        let bridge = kernel.place(0)?;
        tools::ip(
            &bridge,
            &[
                "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".into(),
                "link set p0 master br0".into(),
                "link set p1 master br0".into(),
                "link set br0 up".into(),
            ],
        )?;
        tools::bridge(&bridge, &[format!("fdb replace {} dev p1 master static", mac_text(FAR_MAC))])?;
        for (n, choose) in [(1, "numgen inc mod 3"), (2, "jhash ip saddr . tcp sport mod 3")] {
            let ns = kernel.place(n)?;
            route(&ns)?;
            translate(&ns, choose)?;
        }
        Ok(kernel)
    }

    /// A namespace with a veth into it and one out of it: `NAMEi` to `p0`, `p1` to `NAMEo`.
    fn place(&self, n: usize) -> Result<Netns> {
        let name = self.names[n];
        let ns = Netns::create(&self.record, name)?;
        let inside = ns.name().to_owned();
        ip(&[
            &format!(
                "link add {name}i type veth peer name p0 address {} netns {inside}",
                mac_text(SWITCH_MAC)
            ),
            &format!("link add {name}o type veth peer name p1 netns {inside}"),
        ])?;
        // A redirect into a veth needs NAPI at its peer, asked for before it comes up.
        for dev in ["p0", "p1"] {
            tools::run(ns.command("ethtool").args(["-K", dev, "gro", "on"]))?;
        }
        tools::ip(&ns, &["link set p0 up".into(), "link set p1 up".into()])?;
        ip(&[&format!("link set {name}i up"), &format!("link set {name}o up")])?;
        Ok(ns)
    }

    /// Where frames come out.
    pub fn ends(&self) -> Result<Vec<u32>> {
        self.names.iter().map(|name| index(&format!("{name}o"))).collect()
    }

    /// Where frames for the bridge go in.
    pub fn bridge(&self) -> Result<u32> {
        index(&format!("{}i", self.names[0]))
    }

    /// Where frames for nftables with targets in turn go in.
    pub fn numgen(&self) -> Result<u32> {
        index(&format!("{}i", self.names[1]))
    }

    /// Where frames for nftables with targets by hash go in.
    pub fn jhash(&self) -> Result<u32> {
        index(&format!("{}i", self.names[2]))
    }
}

/// Routes to three targets behind `p1`, whose MACs are known.
fn route(ns: &Netns) -> Result<()> {
    ns.sysctls(&[("net/ipv4/ip_forward", "1")])?;
    let mut lines = vec!["addr add 172.31.0.1/24 dev p1".into(), "addr add 10.255.255.254/8 dev p0".into()];
    for n in 1..=3 {
        let mac = mac_text([2, 0, 0, 0, 3, n]);
        lines.push(format!("neigh replace 172.31.0.1{n} lladdr {mac} dev p1 nud permanent"));
    }
    tools::ip(ns, &lines)
}

/// Has the VIP translated to the targets.
fn translate(ns: &Netns, choose: &str) -> Result<()> {
    let targets = "{ 0 : 172.31.0.11, 1 : 172.31.0.12, 2 : 172.31.0.13 }";
    let rules = format!(
        "table ip lb {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n\
         ip daddr {VIP4} tcp dport 80 dnat to {choose} map {targets}\n}}\n}}\n"
    );
    tools::run(ns.command("nft").arg(rules))?;
    // There once conntrack is: the generated segments have no right checksum.
    ns.sysctls(&[("net/netfilter/nf_conntrack_checksum", "0")])
}
