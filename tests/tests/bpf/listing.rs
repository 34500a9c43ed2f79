//! Listing flows that packets made: portion by portion, every flow is there, and none twice.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::Command;

use lbx_common::target::Forward;
use lbx_tests::bench::programs::{At, Flows, Load, Programs};
use lbx_tests::bpf::world::{Svc, tcp_packet};
use lbx_tests::bpf::{Bench, Hook, World};
use lbx_tests::lab::lbx;
use lbx_tests::packets::{protocol, tcp};
use lbx_user::api::model::FlowQuery;
use lbx_user::view::View;
use lbx_user::view::flows::PORTION;

/// Flows: some portions full.
const FLOWS: u32 = 1 << 18;

/// A table with [`FLOWS`] confirmed flows of one service.
fn filled() -> Bench {
    let mut world = World::new(vec![Svc::new(protocol::TCP, 80, Forward::Dsr, 3)]);
    world.options.flows = 2 * FLOWS;
    let mut bench = Bench::ready(world);
    bench.maps().write_service_name(0, "web").unwrap();
    for target in 0..3 {
        bench.maps().write_target_name(target, &format!("web/web-{target}")).unwrap();
    }
    let programs = Programs::load(1 << 10).unwrap();
    let program = bench.runner(Hook::Xdp(0)).program().try_clone_to_owned().unwrap();
    let frame = tcp_packet(true, 1024, tcp::ACK).build();
    // The second packet of a flow confirms it.
    for _ in 0..2 {
        let load = Load { frame: &frame, flows: Flows::Sequential(FLOWS), whole: false, times: FLOWS };
        programs.cost(At::Xdp, program.as_fd(), &load).unwrap();
    }
    bench
}

#[test]
fn portions_have_every_flow_once_and_the_command_lists_them_all() {
    let bench = filled();
    let view = View::new(bench.maps(), bench.instance()).unwrap();
    let counted = bench.counters().services[0];
    let unrecorded = counted.flows_unrecorded;
    assert!(unrecorded / 2 <= u64::from(FLOWS) / 10_000, "{unrecorded} packets without a record");

    let mut clients = BTreeMap::new();
    let (mut from, mut portions) = (Some(0), 0);
    while let Some(at) = from {
        let query = FlowQuery { from: Some(at), limit: Some(50_000), ..FlowQuery::default() };
        let answer = view.flows(&query).unwrap();
        assert!(answer.flows.len() <= 50_000);
        assert_eq!(answer.more, answer.next.is_some());
        for flow in answer.flows {
            assert_eq!(flow.service.as_deref(), Some("web"));
            *clients.entry(flow.client).or_insert(0_u64) += 1;
        }
        assert!(answer.next.is_none_or(|next| next > at && next <= at + PORTION), "{at}: {:?}", answer.next);
        (from, portions) = (answer.next, portions + 1);
    }
    assert!(portions >= 4, "{portions}");
    // A flow whose first packet found no room, or lost it to another, is not confirmed by its second.
    let unconfirmed = clients.remove(&None).unwrap_or(0);
    let again = counted.flows_recorded + unrecorded - u64::from(FLOWS);
    assert!(unconfirmed <= again, "{unconfirmed} flows are not confirmed, {again} may have begun again");
    assert!(clients.values().all(|times| *times == 1), "no flow twice");
    let listed = clients.len() as u64 + unconfirmed;
    let missing = u64::from(FLOWS) - listed;
    assert!(missing <= unrecorded, "{missing} flows are missing, {unrecorded} packets found no slot");

    let instance = bench.instance().name().unwrap();
    let words = ["--instance", instance, "--json", "flows", "--limit", "10000000"];
    let out = Command::new(lbx::binary().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["flows"].as_array().unwrap().len() as u64, listed);
    assert_eq!(answer["more"], false);
    let words = ["--instance", instance, "flows", "--limit", "1000"];
    let out = Command::new(lbx::binary().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("tcp")).count();
    assert!(rows == 1000 && text.starts_with("PROTO") && text.ends_with("filters show fewer)\n"), "{text}");
}
