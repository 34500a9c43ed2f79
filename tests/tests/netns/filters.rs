//! Filters on a host: which of them a redirected frame would walk past, and which would silence a `dsr` target.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lbx_tests::lab::vm::Family;
use lbx_tests::scenario::foreign;
use lbx_tests::scenario::host::{Host, config};
use lbx_user::datapath::Device;

/// Checks a config on the host; what `lbx check` says about it.
fn check(host: &Host, config: &str) -> String {
    host.lbx.write_config(config).unwrap();
    let (code, text, error) = host.verb(&["check"]);
    assert_eq!(code, 1, "not refused:\n{config}\n{text}{error}");
    text
}

fn nft(host: &Host, rule: &str) {
    assert!(host.ns().command("nft").arg(rule).status().unwrap().success(), "{rule}");
}

#[test]
fn a_port_with_filters_is_not_walked_past() {
    let host = Host::idle(1);
    for rule in [
        "add table bridge guard",
        "add chain bridge guard forward { type filter hook forward priority 0; }",
        "add rule bridge guard forward oifname \"vif0\" tcp dport 25 drop",
    ] {
        nft(&host, rule);
    }
    let redirect = config(1).replace("answer = \"probe\"", "answer = \"probe\"\ndeliver = \"redirect\"");
    let text = check(&host, &redirect);
    assert!(text.contains("would walk past") && text.contains("dport 25"), "{text}");

    let meant = redirect.replace("deliver = \"redirect\"", "deliver = \"redirect\"\nbypass_filters = true");
    host.lbx.write_config(&meant).unwrap();
    assert_eq!(host.verb(&["check"]).0, 0);
    host.lbx.write_config(&config(1)).unwrap();
    assert_eq!(host.verb(&["check"]).0, 0, "auto takes the bridge");
}

#[test]
fn a_program_that_hangs_on_the_port_itself_is_a_filter_too() {
    let host = Host::idle(1);
    let redirect = config(1).replace("answer = \"probe\"", "answer = \"probe\"\ndeliver = \"redirect\"");
    host.lbx.write_config(&redirect).unwrap();
    assert_eq!(host.verb(&["check"]).0, 0, "nothing is there yet");
    let link = host
        .ns()
        .run(|| {
            let vif = Device::by_name("vif0").unwrap();
            foreign::attach("guard_egress", vif.ifindex, foreign::TCX_EGRESS).unwrap()
        })
        .unwrap();
    let text = check(&host, &redirect);
    assert!(text.contains("would walk past") && text.contains("tcx guard_egress"), "{text}");
    host.lbx.write_config(&config(1)).unwrap();
    assert_eq!(host.verb(&["check"]).0, 0, "auto takes the bridge");
    // lbx's own programs, which hang there as well, are not taken for somebody's filters.
    drop(link);
    host.lbx.write_config(&redirect).unwrap();
    host.lbx.cli(&["attach"]).unwrap();
    assert_eq!(host.verb(&["check"]).0, 0);
}

/// Rules of a chain of bridge prerouting or forward; whether `dsr` behind `vif0` (10.77.0.11, VIP 10.77.0.100) is
/// refused with them.
const SOURCE_RULES: [(bool, &str, &[&str]); 11] = [
    // A client that is blocked is not the VIP, wherever it comes from.
    (false, "forward", &["ip saddr 10.77.0.50 drop"]),
    (false, "forward", &["ip saddr { 203.0.113.9, 10.77.0.50 } drop", "ip6 saddr fd77::50 drop"]),
    (false, "forward", &["iifname \"up0\" ip saddr != 10.77.0.0/24 drop"]),
    (false, "forward", &["iifname \"tap9\" ip saddr != 10.77.0.12 drop"]),
    (false, "prerouting", &["iifname \"vif0\" ip saddr != { 10.77.0.11, 10.77.0.100 } drop"]),
    (false, "prerouting", &["iifname \"vif0\" ip saddr != 10.77.0.11 udp sport 67 drop"]),
    // The port's own address and no other.
    (true, "forward", &["iifname \"vif0\" ip saddr != 10.77.0.11 drop"]),
    (true, "prerouting", &["iifname \"vif0\" ip saddr != 10.77.0.11 drop"]),
    (true, "forward", &["iifname \"vif0\" ip saddr 10.77.0.100 drop"]),
    (
        true,
        "forward",
        &["iifname \"vif0\" ip saddr 10.77.0.11 accept", "iifname \"vif0\" meta protocol ip drop"],
    ),
    (true, "prerouting", &["iifname vmap { \"vif0\" : jump own }"]),
];

#[test]
fn a_port_that_drops_the_vip_as_a_source_takes_no_dsr_target_and_any_other_does() {
    let mut host = Host::running(2);
    let server = |host: &Host| host.get(0, 80, Family::V4);
    for (refused, hook, rules) in SOURCE_RULES {
        let table = format!(
            "add table bridge guard; add chain bridge guard own; \
             add rule bridge guard own ip saddr != 10.77.0.11 drop; \
             add chain bridge guard {hook} {{ type filter hook {hook} priority 0; }}"
        );
        nft(&host, &table);
        for rule in rules {
            nft(&host, &format!("add rule bridge guard {hook} {rule}"));
        }
        let (code, text, _) = host.verb(&["check"]);
        let says = text.contains("vif0") && text.contains("filters source addresses");
        assert_eq!((code != 0, says), (refused, refused), "{rules:?}: {text}");
        assert!(!text.contains("vif1: bridge"), "{rules:?}: {text}");
        // What was decided is what happens: only the target behind `vif0` is left out, and whoever is in is heard.
        host.lbx.stop().unwrap();
        host.lbx.run().unwrap();
        let limit = Instant::now() + Duration::from_mins(1);
        while server(&host).is_none() {
            assert!(Instant::now() < limit, "{rules:?}: not served: {}", host.lbx.log());
        }
        let vms: BTreeSet<_> = (0..12)
            .map(|_| server(&host).unwrap_or_else(|| panic!("{rules:?}: {}", host.lbx.log())))
            .collect();
        assert!(vms.contains("vm2"), "{vms:?}");
        assert!(!(refused && vms.contains("vm1")), "{rules:?}: {vms:?}");
        nft(&host, "delete table bridge guard");
    }
}
