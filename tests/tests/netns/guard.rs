//! Guard-rails on a host: what lbx refuses, what it undoes, what it leaves alone and what it leaves behind.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lbx_tests::lab::Lbx;
use lbx_tests::lab::addr;
use lbx_tests::lab::client::http;
use lbx_tests::lab::record::Item;
use lbx_tests::lab::vm::Family;
use lbx_tests::scenario::host::{FAMILIES, Host, config, head, ip, narrow, said, service};
use lbx_user::datapath::{self, Device};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_mins(1);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is attached according to the kernel, not to lbx.
fn attached(host: &Host) -> bool {
    let points = |dev: &str| {
        let index = Device::by_name(dev).unwrap().ifindex;
        [TCX_INGRESS, TCX_EGRESS].iter().any(|hook| tcx_programs(index, *hook) > 0)
            || datapath::xdp_state(index).unwrap().is_some()
    };
    host.ns().run(|| ["up0", "br0", "vif0"].iter().any(|dev| points(dev))).unwrap()
}

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of include/uapi/linux/bpf.h.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// Programs at a tcx hook of an interface of this namespace (`BPF_PROG_QUERY`).
fn tcx_programs(ifindex: u32, hook: u32) -> u32 {
    // target_ifindex, attach_type, query_flags, attach_flags, prog_ids (a u64), count; the rest stays 0.
    let mut words = [0u32; 16];
    (words[0], words[1]) = (ifindex, hook);
    // SAFETY: command 16 is BPF_PROG_QUERY; the attribute is a live, aligned buffer of the size that is passed,
    // and asks for the count alone: prog_ids is null, so the kernel writes nowhere else.
    let done = unsafe { libc::syscall(libc::SYS_bpf, 16, words.as_mut_ptr(), size_of_val(&words)) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    words[6]
}

fn nothing_left(host: &Host) {
    assert!(!attached(host));
    assert!(!host.lbx.pin_dir().exists());
    for dev in ["up0", "br0", "vif0"] {
        assert!(!host.tool(&format!("tc qdisc show dev {dev}")).contains("clsact"), "{dev}");
    }
}

/// The host's default route goes out over the switch.
fn default_route(host: &Host) {
    host.tool("ip route add default via 10.77.0.1");
}

#[test]
fn attach_says_what_it_does_and_detach_leaves_nothing() {
    let host = Host::idle(2);
    let (code, text, _) = host.verb(&["attach", "--dry-run"]);
    assert_eq!(code, 0);
    narrow(&["attach", "--dry-run"], &text);
    for part in ["up0", "uplink", "vif0", "vnic", "br0", "nothing was done"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!host.lbx.pin_dir().exists());
    let done = host.json(&["attach"]);
    assert_eq!((&done["attached"], &done["undone_in"]), (&true.into(), &serde_json::Value::Null));
    assert!(attached(&host));
    host.lbx.cli(&["attach"]).unwrap();
    assert_eq!(host.json(&["status"])["ports"].as_array().unwrap().len(), 4);
    let detached = host.json(&["detach"]);
    assert_eq!(detached["detached"].as_array().unwrap().len(), 4, "{detached}");
    nothing_left(&host);
    assert!(!host.lbx.run_dir().exists());
    assert!(host.lbx.cli(&["detach"]).unwrap().contains("nothing was attached"));
}

#[test]
fn the_default_route_needs_a_yes_and_an_unconfirmed_attach_is_undone_by_a_timer_of_its_own() {
    let host = Host::idle(1);
    default_route(&host);
    let (code, text, error) = host.verb(&["attach"]);
    assert_eq!(code, 1);
    assert!(
        text.contains("NEEDS --yes") && error.contains("the default route goes out over br0"),
        "{text}{error}"
    );
    nothing_left(&host);

    host.lbx.cli(&["attach", "--yes", "--undo-after", "20"]).unwrap();
    assert!(attached(&host));
    let pending = fs::read(host.lbx.run_dir().join("attach-pending.json")).unwrap();
    let pending: serde_json::Value = serde_json::from_slice(&pending).unwrap();
    // The timer leads a session of its own: no shell takes it along.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pending["pid"])).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!((fields[3], fields[19]), (&*pending["pid"].to_string(), &*pending["start_time"].to_string()));
    assert!(host.lbx.cli(&["status"]).unwrap().contains("unless `lbx attach --confirm` follows"));
    until("it was not undone", || !attached(&host));
    until("its pins are still there", || !host.lbx.pin_dir().exists());
    let (code, _, error) = host.verb(&["attach", "--confirm"]);
    assert_eq!(code, 1, "{error}");

    host.lbx.cli(&["attach", "--yes", "--undo-after", "20"]).unwrap();
    host.lbx.cli(&["attach", "--confirm"]).unwrap();
    std::thread::sleep(Duration::from_secs(22));
    assert!(attached(&host), "what is confirmed stays");
    host.lbx.cli(&["detach"]).unwrap();
    nothing_left(&host);
}

#[test]
fn an_ssh_session_over_the_switch_needs_a_yes() {
    let host = Host::idle(1);
    let session = format!("{} 5000 {} 22", addr::client(0).v4, addr::host(0).v4);
    let attach =
        |words: &[&str]| said(&host.lbx.command(words).env("SSH_CONNECTION", &session).output().unwrap());
    let (code, _, error) = attach(&["attach"]);
    assert_eq!(code, 1);
    assert!(error.contains("your SSH session from 10.77.0.1 comes in over br0"), "{error}");
    let (code, _, error) = attach(&["attach", "--yes", "--undo-after", "20"]);
    assert_eq!(code, 0, "{error}");
    until("it was not undone", || !host.lbx.pin_dir().exists());
    nothing_left(&host);
}

#[test]
fn a_daemon_waits_for_the_yes_too_and_its_attach_is_undone_as_well() {
    let mut host = Host::idle(1);
    default_route(&host);
    host.lbx.run().unwrap();
    assert!(!attached(&host), "{}", host.lbx.log());
    assert_eq!(host.verb(&["attach"]).0, 1);
    host.lbx.cli(&["attach", "--yes", "--undo-after", "20"]).unwrap();
    assert!(attached(&host));
    until("it was not undone", || !attached(&host));
    host.lbx.cli(&["attach", "--yes", "--undo-after", "20"]).unwrap();
    host.lbx.cli(&["attach", "--confirm"]).unwrap();
    std::thread::sleep(Duration::from_secs(22));
    assert!(attached(&host));
    host.wait_served();
    host.lbx.stop().unwrap();
    host.lbx.cli(&["detach"]).unwrap();
    nothing_left(&host);
}

/// What is written about an attach that waits.
fn pending(host: &Host) -> serde_json::Value {
    let file = fs::read(host.lbx.run_dir().join("attach-pending.json"));
    file.map_or(serde_json::Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn the_time_to_confirm_begins_when_the_attach_is_done_or_its_process_is_gone() {
    let mut host = Host::idle(1);
    default_route(&host);
    host.lbx.run().unwrap();
    let daemon = Pid::from_raw(host.json(&["status"])["pid"].as_i64().unwrap() as i32);
    let attach = |seconds: &str| {
        // The daemon takes its time.
        kill(daemon, Signal::SIGSTOP).unwrap();
        let attach = host.lbx.command(&["attach", "--yes", "--undo-after", seconds]).spawn().unwrap();
        until("the timer does not wait", || pending(&host)["pid"].as_u64().is_some_and(|pid| pid != 0));
        std::thread::sleep(Duration::from_secs(3));
        attach
    };
    let mut done = attach("20");
    assert_eq!(pending(&host)["undone_at"], 0, "nothing is attached yet");
    kill(daemon, Signal::SIGCONT).unwrap();
    assert!(done.wait().unwrap().success());
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let now: u64 = uptime.split('.').next().unwrap().parse().unwrap();
    let undone_at = pending(&host)["undone_at"].as_u64().unwrap();
    assert!(undone_at + 1 >= now + 20, "{undone_at}, and it is {now}");
    host.lbx.cli(&["attach", "--confirm"]).unwrap();
    host.lbx.stop().unwrap();
    host.lbx.cli(&["detach"]).unwrap();

    // Whoever attached is killed before it could say that it is done: the timer does not wait for ever.
    host.lbx.run().unwrap();
    let daemon = Pid::from_raw(host.json(&["status"])["pid"].as_i64().unwrap() as i32);
    kill(daemon, Signal::SIGSTOP).unwrap();
    let mut killed = host.lbx.command(&["attach", "--yes", "--undo-after", "5"]).spawn().unwrap();
    until("the timer does not wait", || pending(&host)["pid"].as_u64().is_some_and(|pid| pid != 0));
    std::thread::sleep(Duration::from_secs(1));
    killed.kill().unwrap();
    killed.wait().unwrap();
    kill(daemon, Signal::SIGCONT).unwrap();
    until("the time does not begin", || pending(&host)["undone_at"].as_u64().is_some_and(|at| at != 0));
    until("it was not undone", || pending(&host).is_null() && !attached(&host));
    host.lbx.stop().unwrap();
}

#[test]
fn observing_counts_every_verdict_and_changes_no_packet() {
    let mut host = Host::running(2);
    host.lbx.cli(&["attach", "--observe"]).unwrap();
    let before = host.count("observed");
    assert_eq!(host.get(0, 80, Family::V4), None, "the packet passes, and nobody owns the VIP");
    assert!(host.count("observed") > before);
    assert!(host.lbx.cli(&["status"]).unwrap().contains("OBSERVING"));
    assert_eq!(host.json(&["why", "flow", "tcp", "10.77.0.1:1", "10.77.0.100:80"])["reason"], "observed");
    // A restart is no reason to begin to steer.
    host.lbx.stop().unwrap();
    host.lbx.run().unwrap();
    assert!(host.lbx.cli(&["status"]).unwrap().contains("OBSERVING"));
    assert!(host.lbx.log().contains("goes on observing"), "{}", host.lbx.log());
    assert_eq!(host.get(0, 80, Family::V4), None);
    host.lbx.cli(&["attach"]).unwrap();
    // Nobody answered for it meanwhile: the client asks again in its own time.
    until("not steered", || host.get(0, 80, Family::V4).is_some());
}

#[test]
fn the_bypass_is_one_word_that_works_without_the_daemon_and_keeps_the_flows() {
    let mut host = Host::running(2);
    let to = (ip(0, Family::V4), 80).into();
    let mut open =
        host.lab.client().ns.run(|| http::Connection::open(to, None, http::LIMIT).unwrap()).unwrap();
    let vm = open.request("GET", "/", b"", None).unwrap().vm;
    host.lbx.kill().unwrap();
    assert!(host.lbx.cli(&["bypass", "on"]).unwrap().contains("the bypass is on"));
    for family in FAMILIES {
        assert_eq!(host.get(0, 80, family), None);
    }
    let flows = host.json(&["flows", "--state", "established"]);
    assert_eq!(flows["flows"].as_array().unwrap().len(), 1, "{flows}");
    assert!(host.lbx.cli(&["status"]).unwrap().contains("BYPASS is on"));
    assert_eq!(host.json(&["bypass", "off"])["changed"], true);
    assert_eq!(open.request("GET", "/", b"", None).unwrap().vm, vm, "the connection goes on where it was");
    for family in FAMILIES {
        assert!(host.get(0, 80, family).is_some());
    }
}

#[test]
fn another_xdp_program_is_refused_by_name_until_it_is_to_be_replaced() {
    let host = Host::idle(1);
    let native = config(1).replace("uplinks = [\"up0\"]", "uplinks = [\"up0\"]\nxdp = \"native\"");
    host.lbx.write_config(&native).unwrap();
    host.lbx.cli(&["attach"]).unwrap();
    // A second instance: to it the first one's program is a stranger's.
    let mut second = Lbx::new(&host.lab, 0, &native).unwrap();
    second.instance.push_str("-b");
    for dir in [second.run_dir(), second.pin_dir()] {
        host.lab.record.add(&Item::Dir(dir)).unwrap();
    }
    let (code, _, error) = said(&second.output(&["attach"]).unwrap());
    assert_eq!(code, 1);
    assert!(error.contains("up0 already has the XDP program with id"), "{error}");
    second.cli(&["attach", "--replace"]).unwrap();
    assert!(second.cli(&["status"]).unwrap().contains("xdp native"));
    second.cli(&["detach"]).unwrap();
    host.lbx.cli(&["detach"]).unwrap();
    nothing_left(&host);
}

#[test]
fn what_cannot_be_a_switch_or_a_port_is_refused() {
    let host = Host::idle(1);
    for (words, reason) in [
        (["attach", "nodev"], "there is no interface \"nodev\""),
        (["attach", "vif0"], "vif0 is a port of br0"),
        (["attach", "lo"], "loopback"),
    ] {
        let (code, text, error) = host.verb(&words);
        assert_eq!(code, 1, "{words:?}");
        assert!(text.contains("REFUSED") && error.contains(reason), "{words:?}: {text}{error}");
    }
    nothing_left(&host);
}

/// Checks a config on the host; what `lbx check` says about it.
fn check(host: &Host, config: &str) -> String {
    host.lbx.write_config(config).unwrap();
    let (code, text, error) = host.verb(&["check"]);
    assert_eq!(code, 1, "not refused:\n{config}\n{text}{error}");
    text
}

/// Services with other VIPs; `{}` stands for it.
fn with_vip(vip: &str) -> String {
    let service =
        service("web", 0, "dsr", 80).replace("\"10.77.0.100\", \"fd77::100\"", &format!("\"{vip}\""));
    format!("{}{service}[[service.target]]\nnic = \"vif0\"\naddress = \"10.77.0.11\"\n", head())
}

#[test]
fn vips_that_belong_to_somebody_else_are_refused() {
    let host = Host::idle(2);
    default_route(&host);
    for (vip, reason) in [
        ("10.77.0.10", "is an address of this host"),
        ("10.77.0.1", "is the gateway of a route"),
        ("10.77.0.11", "target"),
        ("10.77.0.255", "broadcast"),
        ("224.0.0.9", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
    ] {
        let text = check(&host, &with_vip(vip));
        assert!(text.contains(reason), "{vip}: {text}");
    }
    let twice =
        format!("{}{}", config(1), service("web2", 0, "dsr", 80) + "[[service.target]]\nnic = \"vif0\"\n");
    let text = check(&host, &twice);
    assert!(text.contains("web2") && text.contains("already belongs to service \"web\""), "{text}");
}

#[test]
fn targets_that_would_get_the_wrong_frames_are_refused() {
    let host = Host::idle(2);
    // Two with one MAC.
    let mac = host.lab.vm("vm1").unwrap().mac_text();
    let twins = format!(
        "{}{}[[service.target]]\nmac = \"{mac}\"\n[[service.target]]\nnic = \"vif0\"\n",
        head(),
        service("web", 0, "dsr", 80)
    );
    assert!(check(&host, &twins).contains("the same MAC address"));

    // On another bridge.
    host.tool("ip link add br1 type bridge");
    host.tool("ip link set vif1 master br1");
    host.tool("ip link set br1 up");
    // It says something there, so that the bridge knows who is behind the port; nobody answers.
    let vm2 = host.lab.vm("vm2").unwrap().ns.as_ref().unwrap();
    let nobody = (Ipv4Addr::new(10, 77, 0, 250), 80).into();
    let asked = vm2.run(|| http::request_within(nobody, "GET", "/", b"", Duration::from_secs(1))).unwrap();
    assert!(asked.is_err());
    let text = check(&host, &config(2));
    assert!(text.contains("vif1 is on br1, not on br0"), "{text}");
}

#[test]
fn a_service_is_suspended_when_its_vip_becomes_an_address_of_the_host() {
    let host = Host::running(1);
    host.tool("ip addr add 10.77.0.100/32 dev br0");
    until("not suspended", || {
        let services = host.json(&["services"]);
        let web =
            services["services"].as_array().unwrap().iter().find(|s| s["name"] == "web").unwrap().clone();
        web["active"] == false
            && web["suspended"].as_str().is_some_and(|why| why.contains("address of this host"))
    });
    assert!(host.verb(&["services"]).1.contains("web is suspended"));
    let why = host.json(&["why", "flow", "tcp", "10.77.0.1:1", "10.77.0.100:80"]);
    assert_eq!((&why["verdict"], &why["reason"]), (&"passed".into(), &"suspended".into()));
    host.tool("ip addr del 10.77.0.100/32 dev br0");
    until("not steered again", || host.get(0, 80, Family::V4).is_some());
}
