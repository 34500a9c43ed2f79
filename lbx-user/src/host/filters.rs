//! Is a port filtered? Rules, VLANs and queueing that a frame redirected straight into a tap would walk past.
//!
//! Every source (nft, iptables, ebtables, tc) is read into one small model of chains and rules; one walk over it
//! says which rules a frame for a port could meet. A finding always names its rule.

mod condition;
mod nft;
mod read;
mod rules;
mod source;
mod tc;
mod text;
mod walk;

use std::fmt;

use serde::Serialize;

use super::links::{Kind, Link, View};

pub use condition::Sender;
pub use nft::tables as nft_tables;
pub use read::{Asked, findings};
pub use rules::Table;
pub use source::source_drops;
pub use tc::{TcObject, tc_findings};
pub use text::{ebtables_chains, iptables_chains};
pub use walk::{At, walk};

/// Where a finding was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// nftables, family bridge or netdev (which is also where `ebtables-nft` puts its rules).
    NftBridge,
    /// nftables or iptables on bridged packets (bridge-nf-call-iptables).
    Iptables,
    /// ebtables of the legacy kind.
    Ebtables,
    /// A libvirt network filter bound to the tap.
    Nwfilter,
    /// A tc filter that is not lbx's own.
    Tc,
    /// A queueing discipline that shapes.
    Shaping,
    /// The bridge separates VLANs.
    Vlan,
    /// XDP cannot redirect into the port: a frame would be lost.
    NoRedirect,
    /// Whether XDP can redirect into the port is not known.
    RedirectUnknown,
}

/// One thing that holds for frames to (or from) a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The port's name.
    pub port: String,
    /// What kind of thing.
    pub source: Source,
    /// The rule in the notation of its tool, with table and chain.
    pub rule: String,
    /// Of the senders that were asked about, those whose frames *from* the port it drops because of their source
    /// address: a `dsr` target's replies, which come from the VIP.
    #[serde(skip)]
    pub drops: Vec<Sender>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::NftBridge => "nft rule",
            Source::Iptables => "iptables rule on bridged packets",
            Source::Ebtables => "ebtables rule",
            Source::Nwfilter => "libvirt nwfilter",
            Source::Tc => "tc filter",
            Source::Shaping => "shaping",
            Source::Vlan => "VLAN filtering",
            Source::NoRedirect => "no XDP redirect",
            Source::RedirectUnknown => "XDP redirect unknown",
        };
        write!(f, "{source} on {}: {}", self.port, self.rule)
    }
}

/// VLAN filtering of the bridge a port is on.
pub fn vlan_findings(view: &View, port: &str) -> Vec<Finding> {
    let Some(link) = view.link(port) else { return Vec::new() };
    let Some(bridge) = link.master.and_then(|master| view.by_index(master)) else { return Vec::new() };
    let Kind::Bridge { vlan_filtering: true, .. } = bridge.kind else { return Vec::new() };
    let vlans: Vec<String> = link
        .vlans
        .iter()
        .map(|vlan| {
            let pvid = if vlan.pvid { " pvid" } else { "" };
            format!("{}{pvid}{}", vlan.id, if vlan.untagged { " untagged" } else { "" })
        })
        .collect();
    let rule = format!("bridge {} separates VLANs; {port} is in: {}", bridge.name, vlans.join(", "));
    vec![Finding { port: port.to_owned(), source: Source::Vlan, rule, drops: Vec::new() }]
}

/// A port into which XDP cannot redirect. `takes_redirects` as the kernel tells it; `None`: it does not.
pub fn redirect_finding(link: &Link, takes_redirects: Option<bool>) -> Option<Finding> {
    let (source, rule) = match (&link.kind, takes_redirects) {
        (Kind::Veth { .. }, Some(false)) => (
            Source::NoRedirect,
            "its other end does no NAPI, so frames would be lost (`ethtool -K DEV gro on` there)",
        ),
        (Kind::Veth { .. }, None) => {
            (Source::RedirectUnknown, "this kernel does not tell whether its other end does NAPI")
        }
        // A tap always does; before 6.3 nobody else is asked for.
        (Kind::Tap { .. }, _) | (_, Some(true) | None) => return None,
        (_, Some(false)) => (Source::NoRedirect, "its driver cannot, so frames would be lost"),
    };
    Some(Finding { port: link.name.clone(), source, rule: rule.to_owned(), drops: Vec::new() })
}
