//! The lab itself, without lbx: guests boot and answer, clients measure, and nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::{http, load::Load, long::Long, transfer, udp};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::topology::{NO_VLAN_FILTERING, bridges_filter_vlans};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, VmKind, process, record};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
}

/// Every VM answers on its own addresses, and its counters say that nothing arrived broken.
fn direct(lab: &Lab) {
    let ns = &lab.client().ns;
    for vm in &lab.vms {
        for family in FAMILIES {
            let answer = ns.run(|| http::request(vm.http(family), "GET", "/", b"")).unwrap().unwrap();
            assert_eq!((answer.status, answer.vm.as_str()), (200, vm.spec.name.as_str()));
            let client = match family {
                Family::V4 => lab.client().addr.v4.to_string(),
                Family::V6 => lab.client().addr.v6.to_string(),
            };
            assert!(answer.text().contains(&client), "{}", answer.text());
        }
        assert_eq!(vm.stats(ns).unwrap()["checksum_errors"], 0);
    }
}

#[test]
fn three_guests_boot_and_answer_over_both_families() {
    need_root();
    let start = Instant::now();
    let lab = Lab::start(LabSpec::one_host(3, VmKind::Guest)).unwrap();
    eprintln!("three guests up in {:?}", start.elapsed());
    direct(&lab);
    let (ns, vm) = (&lab.client().ns, &lab.vms[1]);

    // Its port is a tap with QEMU behind it, and the upstream switch knows where the guest is.
    let fdinfo = fs::read_dir(format!("/proc/{}/fdinfo", vm.pid().unwrap())).unwrap();
    let taps: Vec<_> = fdinfo.flatten().filter_map(|e| fs::read_to_string(e.path()).ok()).collect();
    assert!(taps.iter().any(|text| text.contains("iff:\ttap1")), "{taps:?}");
    assert_eq!(lab.upstream_port_of(&vm.mac_text()).unwrap().as_deref(), Some("h0"));

    // 10 MB each way and family, hashed at both ends.
    for family in FAMILIES {
        let down = transfer::download(ns, vm.http(family), None, 10_000_000).unwrap();
        let up = transfer::upload(ns, vm.http(family), None, 10_000_000).unwrap();
        eprintln!("{family:?}: 10 MB down in {:?}, up in {:?}", down.took, up.took);
        assert_eq!((down.vm.as_str(), up.vm.as_str()), ("vm2", "vm2"));
    }

    // 200 long connections, 100 of each family.
    let long: Vec<_> = FAMILIES
        .map(|f| Long::new((vm.ip(f), echo::PORT).into(), 100).start(ns).unwrap())
        .into_iter()
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    for running in long {
        let report = running.stop().unwrap();
        report.check(100).unwrap();
        assert!(report.frames >= 1000, "{report:?}");
        assert_eq!(report.opened.keys().collect::<Vec<_>>(), ["vm2"]);
    }

    // New connections, from several addresses.
    let sources = lab.client().sources.iter().flat_map(|s| s.both()).collect::<Vec<_>>();
    let report = Load { sources, ..Load::new(vm.http(Family::V4), 1000) }.run(ns).unwrap();
    eprintln!("1000 connections in {:?}, median {} us", report.took, report.quantile_us(0.5));
    assert_eq!((report.failed, report.total_connections()), (0, 1000), "{:?}", report.errors);

    for family in FAMILIES {
        let report = udp::run(ns, (vm.ip(family), echo::PORT).into(), 10, 5, 1200).unwrap();
        assert_eq!((report.answered, report.lost, report.moved), (50, 0, 0), "{report:?}");
    }
    assert_eq!(vm.stats(ns).unwrap()["checksum_errors"], 0);

    // QMP answers, with the name lbx will find the VM by.
    let name = vm.qmp().unwrap().execute("query-name", &serde_json::json!({})).unwrap();
    assert_eq!(name["name"], "vm2");
}

#[test]
fn a_multi_queue_guest_has_its_queues() {
    need_root();
    let mut spec = LabSpec::one_host(1, VmKind::Guest);
    spec.hosts[0].vms[0].queues = 2;
    let lab = Lab::start(spec).unwrap();
    direct(&lab);
    let fdinfo = fs::read_dir(format!("/proc/{}/fdinfo", lab.vms[0].pid().unwrap())).unwrap();
    let queues =
        fdinfo.flatten().filter(|e| fs::read_to_string(e.path()).is_ok_and(|t| t.contains("iff:\ttap0")));
    assert_eq!(queues.count(), 2);
}

#[test]
fn stand_ins_behave_like_guests_on_two_hosts() {
    need_root();
    let mut spec = LabSpec::hosts(&[2, 2], VmKind::StandIn);
    spec.clients[0].offloads = Offloads::sender(false);
    let mut lab = Lab::start(spec).unwrap();
    direct(&lab);
    let ns = lab.client().ns.clone();
    let names: BTreeSet<_> = lab.vms.iter().map(|vm| vm.spec.name.clone()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["vm1", "vm2", "vm3", "vm4"]);
    assert_eq!(lab.upstream_port_of(&lab.vms[3].mac_text()).unwrap().as_deref(), Some("h1"));

    // The VIP is on every VM's lo and nobody answers ARP for it.
    let vip = lab.spec.vips[0];
    let silent =
        ns.run(|| http::request_within((vip, 80).into(), "GET", "/", b"", Duration::from_secs(1))).unwrap();
    assert!(silent.is_err());

    // Services stop and start on demand, and take as long as they are told.
    let vm = lab.vm("vm3").unwrap();
    vm.control(&ns, "stop/80").unwrap();
    let refused = ns.run(|| http::request(vm.http(Family::V4), "GET", "/", b"")).unwrap().unwrap_err();
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    vm.control(&ns, "start/80").unwrap();
    vm.control(&ns, "service-time/100").unwrap();
    let start = Instant::now();
    ns.run(|| http::request(vm.http(Family::V6), "GET", "/", b"")).unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(vm.control(&ns, "nonsense").is_err());

    // A killed VM is noticed by its clients, and answers again after a start.
    let long = Long { limit: Duration::from_secs(1), ..Long::new((vm.ip(Family::V4), echo::PORT).into(), 5) };
    let long = long.start(&ns).unwrap();
    lab.vm_mut("vm3").unwrap().kill();
    std::thread::sleep(Duration::from_secs(2));
    let report = long.stop().unwrap();
    assert_eq!((report.broken, report.moved), (5, 0), "{report:?}");
    lab.start_vm("vm3").unwrap();
}

#[test]
fn vlans_separate_clients() {
    need_root();
    let mut spec = LabSpec::one_host(2, VmKind::StandIn);
    spec.hosts[0].vlan_filtering = true;
    spec.hosts[0].uplink_vlans = vec![10];
    spec.hosts[0].vms[1].vlan = Some(10);
    spec.clients.push(lbx_tests::lab::ClientSpec { vlan: Some(10), ..Default::default() });
    if !bridges_filter_vlans().unwrap() {
        eprintln!("NOT TESTED HERE: {NO_VLAN_FILTERING}");
        let error = Lab::start(spec).err().unwrap();
        assert!(format!("{error:#}").contains(NO_VLAN_FILTERING), "{error:#}");
        return;
    }
    let lab = Lab::start(spec).unwrap();
    let ask = |client: usize, vm: usize| {
        let at = lab.vms[vm].http(Family::V4);
        let answer = || http::request_within(at, "GET", "/", b"", Duration::from_secs(1));
        lab.clients[client].ns.run(answer).unwrap().map(|a| a.vm)
    };
    assert_eq!(ask(0, 0).unwrap(), "vm1");
    assert_eq!(ask(1, 1).unwrap(), "vm2");
    assert!(ask(0, 1).is_err());
    assert!(ask(1, 0).is_err());
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    need_root();
    let lab = Lab::start(LabSpec::one_host(1, VmKind::StandIn)).unwrap();
    let traces = Traces::of(lab.id());
    assert!(traces.any(), "the lab was there");
    drop(lab);
    traces.assert_gone();
}

#[test]
fn kill_9_and_signals_leave_nothing() {
    need_root();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_lbx-lab"))
            .args(["up", "--vms", "2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(owner.stdout.take().unwrap()));
        let first = lines.next().unwrap().unwrap();
        let id = first.split_whitespace().nth(1).unwrap().to_owned();
        let last = lines.map_while(Result::ok).find(|line| line.contains("Ctrl-C"));
        assert!(last.is_some(), "lab {id} did not come up");
        let traces = Traces::of(&id);
        assert_eq!(traces.processes.len(), 2, "two guests run");

        // Not Child::kill: that would be SIGKILL each time.
        kill(Pid::from_raw(owner.id() as i32), signal).unwrap();
        owner.wait().unwrap();
        if signal == Signal::SIGKILL {
            assert!(traces.any(), "a killed lab cannot tidy up");
            let gc = Command::new(env!("CARGO_BIN_EXE_lbx-lab")).arg("gc").status().unwrap();
            assert!(gc.success());
        }
        traces.assert_gone();
    }
}

/// What a lab leaves in the system while it is up.
struct Traces {
    id: String,
    processes: Vec<(i32, u64)>,
}

impl Traces {
    fn of(id: &str) -> Self {
        let items = record::items(&Path::new(record::ROOT).join(id));
        let processes = items.into_iter().filter_map(|item| match item {
            record::Item::Process { pid, start } => Some((pid, start)),
            _ => None,
        });
        let alive = processes.filter(|(pid, start)| process::start_time(*pid) == Some(*start)).collect();
        Self { id: id.into(), processes: alive }
    }

    /// Everything that still bears the lab's id.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in ["/run/netns", "/run", "/sys/fs/bpf"] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(&self.id) {
                    left.push(format!("{dir}/{name}"));
                }
            }
        }
        let record = Path::new(record::ROOT).join(&self.id);
        if record.exists() {
            left.push(record.display().to_string());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        left.extend(mounts.lines().filter(|l| l.contains(&self.id)).map(str::to_owned));
        let alive = self.processes.iter().filter(|(pid, start)| process::start_time(*pid) == Some(*start));
        left.extend(alive.map(|(pid, _)| format!("process {pid}")));
        left
    }

    fn any(&self) -> bool {
        !self.left().is_empty()
    }

    fn assert_gone(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
    }
}
