//! Does anybody else answer for a VIP? A guest that owns it and has not been told to keep quiet, or a machine on
//! the segment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lbx_common::addr::Mac;
use tokio::time::{Instant, timeout_at};

use super::Findings;
use crate::answer::frame::{Said, probe};
use crate::answer::socket::{Scope, Socket};
use crate::config::Config;
use crate::config::checked::format_mac;
use crate::daemon::host::Host;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(600);

pub(super) async fn look(config: &Config, host: &Host, found: &mut Findings) {
    // VIPs by switch and family; tagged ones cannot be asked for on the bridge's own device.
    let mut asked: BTreeMap<(u32, bool), BTreeSet<IpAddr>> = BTreeMap::new();
    for service in config.services.iter().filter(|service| service.vlan.is_none()) {
        let Some(link) = host.view.link(&service.switch) else { continue };
        for vip in &service.vips {
            asked.entry((link.index, vip.is_ipv4())).or_default().insert(*vip);
        }
    }
    for ((ifindex, v4), vips) in asked {
        let Some(link) = host.view.by_index(ifindex) else { continue };
        match listen(host, ifindex, link.mac, v4, &vips).await {
            Ok(heard) => report(host, &vips, &heard, found),
            Err(error) => {
                let text = format!("cannot be asked for on {}: {error}", link.name);
                found.warn("arp_ignore", &link.name, text, "run it as root");
            }
        }
    }
}

/// Who claims which of the VIPs when asked. On the bridge's own device lbx itself would answer: the question
/// leaves by each port, the answers come in by the bridge.
async fn listen(
    host: &Host,
    ifindex: u32,
    mac: Mac,
    v4: bool,
    vips: &BTreeSet<IpAddr>,
) -> std::io::Result<BTreeSet<(IpAddr, Mac)>> {
    let scope = if v4 { Scope::Arp } else { Scope::Ipv6 };
    let socket = Socket::open(ifindex, scope)?;
    for port in host.view.ports(ifindex).filter(|port| port.up) {
        let port = Socket::open(port.index, scope)?;
        for vip in vips {
            port.send(&probe(*vip, mac, 0))?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut heard = BTreeSet::new();
    while let Ok(one) = timeout_at(deadline, socket.heard()).await {
        let one = one?;
        if one.said == Said::Claim && vips.contains(&one.addr) && one.mac != mac {
            heard.insert((one.addr, one.mac));
        }
    }
    Ok(heard)
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
