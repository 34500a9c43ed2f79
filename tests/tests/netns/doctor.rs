//! `lbx doctor` on labs that are not as they should be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lbx_tests::lab::Netns;
use lbx_tests::scenario::host::{FAMILIES, Host, head, ip, service};
use lbx_user::answer::frame::{Said, announcement};
use lbx_user::answer::socket::{Scope, Socket};
use lbx_user::datapath::Device;

/// Answers whoever asks for a VIP with a tag, by unicast, until `stop`.
fn answer_tagged(ns: &Netns, mac: [u8; 6], vlan: u16, stop: &AtomicBool) {
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = Socket::open(Device::by_name("eth0").unwrap().ifindex, Scope::All).unwrap();
            while !stop.load(Ordering::SeqCst) {
                let soon = Duration::from_millis(100);
                let Ok(heard) = tokio::time::timeout(soon, socket.heard()).await else { continue };
                let heard = heard.unwrap();
                if heard.said == Said::Probe && heard.vlan == vlan {
                    let mut answer = announcement(heard.addr, mac, vlan);
                    answer[..6].copy_from_slice(&heard.mac);
                    socket.send(&answer).unwrap();
                }
            }
        });
    })
    .unwrap();
}

#[test]
fn doctor_asks_for_vips_on_a_vlan_and_says_where_it_did_not_ask() {
    let host = Host::idle(1);
    host.tool("ip link add nic0 type veth peer name nic1");
    host.tool("ip link set nic0 up");
    let vm = host.lab.vm("vm1").unwrap();
    let tagged = service("web", 0, "dsr", 80).replace("switch = \"br0\"", "switch = \"br0\"\nvlan = 10");
    let bare = service("api", 1, "dsr", 80).replace("switch = \"br0\"", "switch = \"nic0\"");
    let text = format!(
        "{}[[switch]]\nname = \"nic0\"\n{tagged}[[service.target]]\nnic = \"vif0\"\n{bare}[[service.target]]\n\
         mac = \"02:00:00:00:00:77\"\n",
        head()
    );
    host.lbx.write_config(&text).unwrap();
    let stop = AtomicBool::new(false);
    let report: serde_json::Value = std::thread::scope(|scope| {
        scope.spawn(|| answer_tagged(vm.ns.as_ref().unwrap(), vm.mac, 10, &stop));
        std::thread::sleep(Duration::from_millis(500));
        let (_, out, error) = host.verb(&["doctor", "--json"]);
        stop.store(true, Ordering::SeqCst);
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"))
    });
    let of = |subject: &str| {
        let all = report["checks"].as_array().unwrap().clone();
        let found = all.into_iter().find(|one| one["check"] == "arp_ignore" && one["subject"] == subject);
        found.unwrap_or_else(|| panic!("nothing about {subject} in {report}"))
    };
    for family in FAMILIES {
        let asked = of(&ip(0, family).to_string());
        assert!(asked["level"] == "fail" || asked["level"] == "warn", "{asked}");
        assert!(asked["text"].as_str().unwrap().contains(&vm.mac_text()), "{asked}");
        let skipped = of(&ip(1, family).to_string());
        assert_eq!(skipped["level"], "skipped", "{skipped}");
        assert!(skipped["text"].as_str().unwrap().contains("nic0 is no bridge"), "{skipped}");
    }
}
