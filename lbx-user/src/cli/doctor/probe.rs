//! Does anybody else answer for a VIP? A guest that owns it and has not been told to keep quiet, or a machine on
//! the segment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use lbx_common::addr::Mac;
use tokio::time::{Instant, timeout_at};

use super::Findings;
use crate::answer::frame::{Said, probe};
use crate::answer::socket::{Scope, Sender, Socket};
use crate::config::Config;
use crate::config::checked::format_mac;
use crate::daemon::host::Host;
use crate::host::{Kind, Link};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(600);

/// VIPs of one switch that are asked for together.
struct Asked<'a> {
    switch: &'a Link,
    /// The services' VLAN, as the config has it.
    vlan: Option<u16>,
    vips: BTreeSet<IpAddr>,
}

pub(super) async fn look(config: &Config, host: &Host, found: &mut Findings) {
    let mut asked: BTreeMap<(u32, Option<u16>, bool), Asked<'_>> = BTreeMap::new();
    for service in &config.services {
        let Some(switch) = host.view.link(&service.switch) else { continue };
        for vip in &service.vips {
            let key = (switch.index, service.vlan, vip.is_ipv4());
            let of = asked.entry(key).or_insert_with(|| Asked {
                switch,
                vlan: service.vlan,
                vips: BTreeSet::new(),
            });
            of.vips.insert(*vip);
        }
    }
    for ((.., v4), asked) in asked {
        let name = &asked.switch.name;
        let why = if !asked.switch.is_bridge() {
            Some(format!("{name} is no bridge, so nobody can be asked past lbx's own answer"))
        } else if host.view.ports(asked.switch.index).all(|port| !port.up) {
            Some(format!("no port of {name} is up"))
        } else {
            None
        };
        if let Some(why) = why {
            for vip in &asked.vips {
                found.skipped("arp_ignore", &vip.to_string(), &why);
            }
            continue;
        }
        match listen(host, &asked, v4).await {
            Ok(heard) => report(host, &asked.vips, &heard, found),
            Err(error) => {
                let text = format!("cannot be asked for on {name}: {error}");
                found.warn("arp_ignore", name, text, "run it as root");
            }
        }
    }
}

/// The tag on frames of a VLAN at a port: none where its bridge takes it off there. `None`: it is no member.
fn tag(switch: &Link, port: &Link, vlan: Option<u16>) -> Option<u16> {
    let filtering = matches!(switch.kind, Kind::Bridge { vlan_filtering: true, .. });
    match vlan {
        Some(vlan) if filtering => {
            let own = port.vlans.iter().find(|own| own.id == vlan)?;
            Some(if own.untagged { 0 } else { vlan })
        }
        other => Some(other.unwrap_or(0)),
    }
}

/// Who claims which of the VIPs when asked. On the bridge's own device lbx itself would answer: the question
/// leaves by each port. Untagged answers come in by the bridge; tagged ones are heard where they still have
/// their tag, at the port.
async fn listen(host: &Host, asked: &Asked<'_>, v4: bool) -> std::io::Result<BTreeSet<(IpAddr, Mac)>> {
    let (switch, vips) = (asked.switch, &asked.vips);
    let scope = match (asked.vlan, v4) {
        (Some(_), _) => Scope::All,
        (None, true) => Scope::Arp,
        (None, false) => Scope::Ipv6,
    };
    let ports = host.view.ports(switch.index).filter(|port| port.up);
    let ports: Vec<(u32, u16)> =
        ports.filter_map(|port| Some((port.index, tag(switch, port, asked.vlan)?))).collect();
    let ears: Vec<(u32, u16)> = if asked.vlan.is_some() { ports.clone() } else { vec![(switch.index, 0)] };
    let sockets = ears
        .into_iter()
        .map(|(index, tag)| Ok((Socket::open(index, scope)?, tag)))
        .collect::<std::io::Result<Vec<_>>>()?;
    let sender = Sender::open()?;
    for (index, tag) in ports {
        for vip in vips {
            sender.send(index, &probe(*vip, switch.mac, tag))?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let hear = sockets.iter().map(async |(socket, tag)| {
        let mut heard = BTreeSet::new();
        while let Ok(one) = timeout_at(deadline, socket.heard()).await {
            let one = one?;
            let claims = one.said == Said::Claim && one.vlan == *tag;
            if claims && vips.contains(&one.addr) && one.mac != switch.mac {
                heard.insert((one.addr, one.mac));
            }
        }
        Ok(heard)
    });
    let heard: std::io::Result<Vec<_>> = join_all(hear).await.into_iter().collect();
    Ok(heard?.into_iter().flatten().collect())
}

fn report(host: &Host, vips: &BTreeSet<IpAddr>, heard: &BTreeSet<(IpAddr, Mac)>, found: &mut Findings) {
    for vip in vips {
        let subject = vip.to_string();
        let mut quiet = true;
        for (_, mac) in heard.iter().filter(|(of, _)| of == vip) {
            quiet = false;
            let shown = format_mac(mac);
            let target = host.found.iter().find(|one| one.base.mac == Some(*mac) && !one.remote);
            match target {
                Some(target) => {
                    let text = format!(
                        "target {} answers for it ({shown}): clients go past lbx",
                        target.full_name()
                    );
                    let hint =
                        "in the guest: net.ipv4.conf.all.arp_ignore=1 and arp_announce=2, the VIP on lo";
                    found.fail("arp_ignore", &subject, text, hint);
                }
                None => {
                    let hint =
                        "right if that is the router or host that is to answer; else take the address off it";
                    found.warn(
                        "arp_ignore",
                        &subject,
                        format!("{shown} on the segment answers for it"),
                        hint,
                    );
                }
            }
        }
        if quiet {
            found.ok("arp_ignore", &subject, "nobody but lbx answers for it");
        }
    }
}
