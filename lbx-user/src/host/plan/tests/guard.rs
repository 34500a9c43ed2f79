//! How frames are delivered, and what is refused.

use super::*;
use crate::host::filters::{Finding, Source};
use crate::host::testing;

/// `drops`: what the VIP sends is dropped by it.
fn finding(source: Source, drops: bool) -> Finding {
    let rule = "bridge guard fwd: ip saddr 203.0.113.9 drop".to_owned();
    let drops = if drops { senders(&config("", "", TARGET).services[0]) } else { Vec::new() };
    Finding { port: "tap0".to_owned(), source, rule, drops }
}

#[test]
fn auto_delivers_through_the_bridge_where_something_would_be_lost() {
    assert_eq!(delivery_auto(&[]).0, Delivered::Redirect);
    let (how, why) = delivery_auto(&[finding(Source::Shaping, false), finding(Source::NftBridge, false)]);
    assert_eq!(how, Delivered::Bridge);
    assert_eq!(
        why,
        "a redirected frame would not meet: nft rule on tap0: bridge guard fwd: ip saddr 203.0.113.9 drop \
         (and 1 more)"
    );
}

#[test]
fn what_cannot_be_redirected_into_goes_by_the_bridge_or_not_at_all() {
    use crate::host::filters::redirect_finding;
    let veth = link(3, "tap0", Kind::Veth { peer: None }, Some(1));
    assert_eq!(redirect_finding(&veth, Some(true)), None);
    assert_eq!(redirect_finding(&link(3, "tap0", tap(), Some(1)), None), None);
    // Where it is not known, `auto` rather takes the slow way; who asks for the other one knows why.
    let unknown = redirect_finding(&veth, None).unwrap();
    assert_eq!(delivery_auto(std::slice::from_ref(&unknown)).0, Delivered::Bridge);
    let asked = config("", "deliver = \"redirect\"", TARGET);
    assert_eq!(refusals(&host(), &asked, &[resolved("tap0", Some(3), 1)], &[unknown]), []);
    let deaf = redirect_finding(&veth, Some(false)).unwrap();
    let (how, why) = delivery_auto(&[finding(Source::NftBridge, false), deaf.clone()]);
    assert_eq!(how, Delivered::Bridge);
    assert!(why.contains("does no NAPI"), "{why}");
    let targets = [resolved("tap0", Some(3), 1)];
    for more in ["", "\nbypass_filters = true"] {
        let redirect = config("", &format!("deliver = \"redirect\"{more}"), TARGET);
        let found = refusals(&host(), &redirect, &targets, std::slice::from_ref(&deaf));
        refused(&found, Some("tap0"), "does not reach it");
        assert!(found[0].hint.contains("gro on"), "{}", found[0].hint);
    }
}

const TARGET: &str = "[[service.target]]\nnic = \"tap0\"\n";

fn resolved(target: &str, link: Option<u32>, mac: u8) -> ResolvedTarget {
    ResolvedTarget {
        service: "web".to_owned(),
        target: target.to_owned(),
        link,
        mac: Some([0x52, 0x54, 0, 0, 0, mac]),
        queues: 1,
        error: None,
    }
}

fn refusals(view: &View, config: &Config, targets: &[ResolvedTarget], findings: &[Finding]) -> Vec<Refusal> {
    guard_rails(&GuardInput { config, view, targets, findings })
}

/// Exactly one refusal, of a target (`Some`) or the service, that says so.
fn refused(found: &[Refusal], target: Option<&str>, says: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].target.as_deref(), target);
    assert!(found[0].reason.contains(says), "{:?} says not {says:?}", found[0].reason);
}

#[test]
fn a_host_that_fits_is_not_refused() {
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("tap0", Some(3), 1)], &[]);
    assert_eq!(found, []);
}

#[test]
fn a_vip_belongs_to_no_machine() {
    let with = |vip: &str| config("", &format!("vip = \"{vip}\""), TARGET);
    refused(&refusals(&host(), &with("192.0.2.1"), &[], &[]), None, "address of this host, on br0");
    refused(&refusals(&host(), &with("198.51.100.1"), &[], &[]), None, "gateway");
    refused(&refusals(&host(), &with("192.0.2.255"), &[], &[]), None, "broadcast address of 192.0.2.0/24");
    refused(&refusals(&host(), &with("192.0.2.0"), &[], &[]), None, "network 192.0.2.0/24 itself");
    let held = config("", "vip = \"192.0.2.1\"\nanswer = \"link:br0\"", TARGET);
    assert_eq!(refusals(&host(), &held, &[], &[]), []);
    let elsewhere = config("", "vip = \"192.0.2.1\"\nanswer = \"link:eth1\"", TARGET);
    refused(&refusals(&host(), &elsewhere, &[], &[]), None, "address of this host");
}

#[test]
fn two_targets_with_one_mac() {
    let two = [resolved("tap0", Some(3), 1), resolved("other", None, 1)];
    let dsr = config("", "", TARGET);
    refused(
        &refusals(&host(), &dsr, &two, &[]),
        Some("other"),
        "same MAC address 52:54:00:00:00:01 as target tap0",
    );
    let ports = [resolved("tap0:1", Some(3), 1), resolved("tap0:2", Some(3), 1)];
    let nat = config("", "forward = \"nat\"", TARGET);
    assert_eq!(refusals(&host(), &nat, &ports, &[]), [], "two ports of one VM");
}

#[test]
fn a_target_on_another_bridge() {
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("tap1", Some(5), 1)], &[]);
    refused(&found, Some("tap1"), "tap1 is on br1, not on br0");
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("eth1", Some(6), 1)], &[]);
    refused(&found, Some("eth1"), "on no bridge");
}

#[test]
fn a_target_outside_the_vlan() {
    let mut view = host();
    view.links[0].kind = bridge(true);
    view.links[2].vlans = vec![PortVlan { id: 20, pvid: false, untagged: false }];
    let targets = [resolved("tap0", Some(3), 1)];
    let found = refusals(&view, &config("", "vlan = 10", TARGET), &targets, &[]);
    refused(&found, Some("tap0"), "not a member of VLAN 10");
    assert_eq!(refusals(&view, &config("", "vlan = 20", TARGET), &targets, &[]), []);
    refused(&refusals(&view, &config("", "", TARGET), &targets, &[]), Some("tap0"), "no untagged frames");
}

#[test]
fn redirect_past_a_rule_needs_bypass_filters() {
    let targets = [resolved("tap0", Some(3), 1)];
    let rule = [finding(Source::NftBridge, false)];
    let redirect = config("", "deliver = \"redirect\"", TARGET);
    refused(&refusals(&host(), &redirect, &targets, &rule), Some("tap0"), "bridge guard fwd");
    let bypass = config("", "deliver = \"redirect\"\nbypass_filters = true", TARGET);
    assert_eq!(refusals(&host(), &bypass, &targets, &rule), []);
    assert_eq!(refusals(&host(), &config("", "", TARGET), &targets, &rule), [], "auto goes by the bridge");
    assert_eq!(refusals(&host(), &redirect, &targets, &[finding(Source::Vlan, false)]), []);
}

#[test]
fn dsr_behind_a_source_filter() {
    let targets = [resolved("tap0", Some(3), 1)];
    let filter = [finding(Source::Nwfilter, true)];
    refused(
        &refusals(&host(), &config("", "", TARGET), &targets, &filter),
        Some("tap0"),
        "answers from the VIP",
    );
    let nat = config("", "forward = \"nat\"", TARGET);
    assert_eq!(refusals(&host(), &nat, &targets, &filter), []);
}

#[test]
fn a_target_that_was_not_found_says_why() {
    let mut lost = resolved("tap0", None, 1);
    lost.error = Some("no process of that name".to_owned());
    refused(
        &refusals(&host(), &config("", "", TARGET), &[lost], &[]),
        Some("tap0"),
        "no process of that name",
    );
}

#[test]
fn the_way_out_and_the_callers_session_are_not_cut() {
    let view = host();
    assert_eq!(lockout(&view, "br0", None), None);
    let ssh = "203.0.113.5 50000 192.0.2.1 22";
    assert!(lockout(&view, "br0", Some(ssh)).unwrap().contains("from 203.0.113.5 comes in over br0"));
    let through = "192.0.2.99 50000 198.51.100.7 22";
    assert!(lockout(&view, "br0", Some(through)).unwrap().contains("replies"));
    assert!(lockout(&view, "eth1", None).unwrap().contains("default route goes out over eth1"));
    assert_eq!(lockout(&view, "br1", Some(ssh)), None);

    // The default route on a VLAN on top of the bridge, and on the bridge whose port is attached.
    let mut view = host();
    let mut vlan = link(9, "br0.5", Kind::Vlan { id: 5 }, None);
    vlan.parent = Some(1);
    view.links.push(vlan);
    view.routes[0].index = Some(9);
    assert!(lockout(&view, "br0", None).unwrap().contains("br0.5"));
    assert_eq!(lockout(&view, "br1", None), None);
}

#[test]
fn targets_are_found_on_the_host() {
    let args =
        ["qemu", "-name", "a", "-netdev", "tap,id=n,fd=9", "-device", "x,netdev=n,mac=52:54:00:00:00:01"];
    let process = |taps: &[(&str, i32)]| testing::process(1, 0, &args, taps);
    let targets = "[[service.target]]\nvm = \"a\"\n[[service.target]]\nnic = \"tap9\"\n\
                   [[service.target]]\nmac = \"52:54:00:00:00:03\"\n";
    let config = config("", "", targets);
    // tap1 is on br1: the one on the service's switch counts.
    let found = resolve(&config, &host(), &[process(&[("tap1", 8), ("tap0", 9)])]);
    assert_eq!((found[0].link, found[0].mac), (Some(3), Some([0x52, 0x54, 0, 0, 0, 1])));
    assert_eq!(found[1].error.as_deref(), Some("there is no interface \"tap9\""));
    assert_eq!((found[2].link, found[2].mac), (None, Some([0x52, 0x54, 0, 0, 0, 3])));
    let elsewhere = resolve(&config, &host(), &[process(&[("tap1", 8)])]);
    assert_eq!(elsewhere[0].link, Some(5), "refused later, by the bridge it is on");
    let gone = resolve(&config, &host(), &[]);
    assert!(gone[0].error.as_ref().unwrap().contains("no process of that name"));
}
