//! Network set-up of a guest from its parameters.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::netlink::Netlink;
use super::params::Params;

/// Configures addresses, VIPs, routes and the sysctls a `dsr` target needs.
pub fn configure(params: &Params) -> Result<()> {
    let dev = &params.dev;
    wait_for_device(dev)?;
    // A VIP on lo must neither be answered for nor be announced as a source: the load balancer owns it.
    for (key, value) in [
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/lo/disable_ipv6", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/core/somaxconn", "4096"),
    ] {
        sysctl(key, value)?;
    }
    sysctl(&format!("net/ipv4/conf/{dev}/rp_filter"), "0")?;
    for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")] {
        sysctl(&format!("net/ipv6/conf/{dev}/{key}"), value)?;
    }
    let netlink = Netlink::open()?;
    let (lo, index) = (device_index("lo")?, device_index(dev)?);
    netlink.link_up(lo, None).context("lo up")?;
    for vip in &params.vips {
        let prefix = if vip.is_ipv4() { 32 } else { 128 };
        netlink.add_address(lo, *vip, prefix).with_context(|| format!("VIP {vip} on lo"))?;
    }
    netlink.link_up(index, params.mtu).with_context(|| format!("{dev} up"))?;
    for cidr in &params.addresses {
        netlink.add_address(index, cidr.addr, cidr.prefix).with_context(|| format!("{cidr:?} on {dev}"))?;
    }
    for gateway in &params.gateways {
        netlink.add_default_route(index, *gateway).with_context(|| format!("route through {gateway}"))?;
    }
    Ok(())
}

/// Writes a sysctl, given by its path under /proc/sys.
pub fn sysctl(key: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(key), value).with_context(|| format!("sysctl {key} = {value}"))
}

/// The index of a device of the current namespace.
pub fn device_index(dev: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(dev).with_context(|| format!("no device {dev}"))
}

/// A driver may take a moment to make its device after its module was loaded.
fn wait_for_device(dev: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while device_index(dev).is_err() {
        if Instant::now() > deadline {
            bail!("device {dev} did not appear");
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
