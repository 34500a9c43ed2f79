//! Large transfers through lbx to a QEMU guest, hashed at both ends: forwarding x family x sender offloads.
//!
//! Every cell moves `LBX_TRANSFER_MB` megabytes in each direction (100 unless set).

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lbx_tests::guest::stats;
use lbx_tests::lab::client::transfer;
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};

fn bytes() -> u64 {
    let set = std::env::var("LBX_TRANSFER_MB").ok();
    set.map_or(100, |text| text.parse().expect("LBX_TRANSFER_MB is a number")) * 1_000_000
}

fn checksum_errors(lab: &Lab) -> (u64, u64) {
    let client = lab.client().ns.run(|| stats::checksum_errors(&stats::counters())).unwrap();
    let guest = lab.vms[0].stats(&lab.client().ns).unwrap()["checksum_errors"].as_u64().unwrap();
    (client, guest)
}

#[test]
fn every_cell_arrives_whole() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let lab = Lab::start(LabSpec::one_host(1, VmKind::Guest)).unwrap();
    let dsr = Service::dsr("dsr", addr::vip(0), "tcp", 80, guests(&lab, &[1]));
    let nat = Service::nat("nat", addr::vip(1), "tcp", 8080, 80, guests(&lab, &[1]));
    let lbx = Lbx::start(&lab, 0, &File::of_guests(vec![dsr, nat]).text()).unwrap();
    let client = &lab.client().ns;
    let cells = [("dsr", addr::vip(0), 80), ("nat", addr::vip(1), 8080)];
    for (_, vip, port) in cells {
        for ip in vip.both() {
            let deadline = Instant::now() + Duration::from_secs(20);
            while transfer::download(client, SocketAddr::new(ip, port), None, 1000).is_err() {
                assert!(Instant::now() < deadline, "{ip} is not served:\n{}", lbx.log());
                sleep(Duration::from_millis(50));
            }
        }
    }
    let before = checksum_errors(&lab);
    for sender in [true, false] {
        Offloads::sender(sender).apply(client, "eth0").unwrap();
        for (forward, vip, port) in cells {
            for ip in vip.both() {
                let at = SocketAddr::new(ip, port);
                let up = transfer::upload(client, at, None, bytes()).unwrap();
                let down = transfer::download(client, at, None, bytes()).unwrap();
                assert_eq!(up.sha256, down.sha256);
                let on = if sender { "on" } else { "off" };
                eprintln!("{forward} {ip} sender offloads {on}: up {:.1?}, down {:.1?}", up.took, down.took);
                assert_eq!(checksum_errors(&lab), before, "{forward} {ip} sender offloads {on}");
            }
        }
    }
    let stats = lbx.json(&["stats"]).unwrap();
    let rows = stats["services"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["drops"], 0, "{row}");
        assert!(row["bytes"].as_u64().unwrap() > 4 * bytes(), "lbx steered the uploads: {row}");
    }
}
