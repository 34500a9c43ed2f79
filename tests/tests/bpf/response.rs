//! Response times: which packets start and stop the clock, in `dsr`, `nat` and where answers do not pass lbx.

use std::net::IpAddr;
use std::time::Duration;

use lbx_common::response::{Response, smooth};
use lbx_common::target::Deliver;
use lbx_tests::bpf::world::{CLIENT_MAC, FAMILIES, UPLINK, ends, tcp_packet, udp_packet, vm_mac, vm4, vm6};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, PSH, RST, SYN};
use lbx_tests::packets::{Body, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

/// What a VM answers, with data or without: from the VIP, or from its own address.
fn answer(nat: bool, v4: bool, vm: u8, port: u16, data: &[u8]) -> Vec<u8> {
    let (client, vip) = ends(v4);
    let own: IpAddr = if v4 { vm4(vm).into() } else { vm6(vm).into() };
    let ports = (if nat { 8080 } else { 80 }, port);
    let body = Body::Tcp { ports, seq: 1, ack: 2, flags: ACK, options: Vec::new(), data: data.to_vec() };
    Packet::new((vm_mac(vm), CLIENT_MAC), if nat { own } else { vip }, client, body).build()
}

fn of(bench: &Bench, target: u32) -> Response {
    bench.maps().response(target).unwrap()
}

fn all(bench: &Bench) -> u64 {
    (0..6).map(|target| of(bench, target).count).sum()
}

#[test]
fn the_time_runs_from_a_request_to_its_answer() {
    for nat in [false, true] {
        let mut bench = Bench::ready(if nat { World::nat() } else { World::dsr() });
        bench.maps().write_sampling(1).unwrap();
        for (hook, port) in HOOKS.into_iter().zip([40000, 40100]) {
            for v4 in FAMILIES {
                let before = all(&bench);
                let vm = {
                    let ran = bench.run(hook, &tcp_packet(v4, port, SYN).build());
                    assert_eq!(ran.verdict, Verdict::Redirect);
                    ran.vm()
                };
                let back = Hook::Tc(vm.into());
                let target = u32::from(vm) - 1;
                let (first, own) = (of(&bench, target), |bench: &Bench| of(bench, target).count);
                let count = first.count;
                // The handshake is the kernel's, and acknowledgements are no requests.
                bench.run(back, &answer(nat, v4, vm, port, b""));
                bench.run(hook, &tcp_packet(v4, port, ACK).build());
                bench.run(back, &answer(nat, v4, vm, port, b"unasked"));
                assert_eq!(own(&bench), count, "nothing was asked");
                bench.run(hook, &tcp_packet(v4, port, ACK | PSH).build());
                std::thread::sleep(Duration::from_millis(3));
                // Sent again: the first counts.
                bench.run(hook, &tcp_packet(v4, port, ACK | PSH).build());
                bench.run(back, &answer(nat, v4, vm, port, b""));
                assert_eq!(own(&bench), count, "acknowledged, not answered");
                let answered = bench.run(back, &answer(nat, v4, vm, port, b"an answer"));
                assert_eq!(answered.verdict, Verdict::Pass);
                bench.run(back, &answer(nat, v4, vm, port, b"and more of it"));
                let now = of(&bench, target);
                assert_eq!(now.count, count + 1);
                let took = now.sum - first.sum;
                assert!((3_000_000..20_000_000_000).contains(&took), "{took} ns");
                assert_eq!(now.buckets.iter().sum::<u64>(), now.count);
                assert_eq!(now.smoothed, smooth(first.smoothed, took));
                // The next on the same connection.
                bench.run(hook, &tcp_packet(v4, port, ACK | PSH).build());
                bench.run(back, &answer(nat, v4, vm, port, b"an answer"));
                assert_eq!((own(&bench), all(&bench)), (count + 2, before + 2));
            }
        }
    }
}

#[test]
fn datagrams_are_requests_from_the_first_on() {
    let mut bench = Bench::ready(World::dsr());
    bench.maps().write_sampling(1).unwrap();
    for (n, v4) in FAMILIES.into_iter().enumerate() {
        let vm = bench.run(Hook::Xdp(UPLINK), &udp_packet(v4, 5000).build()).vm();
        let (client, vip) = ends(v4);
        let body = Body::Udp { ports: (53, 5000), checksum: true, data: b"answer".to_vec() };
        let back = Packet::new((vm_mac(vm), CLIENT_MAC), vip, client, body).build();
        bench.run(Hook::Tc(vm.into()), &back).passed("the answer", &back, &[]);
        bench.run(Hook::Tc(vm.into()), &back).passed("another", &back, &[]);
        assert!(of(&bench, u32::from(vm) + 2).count > 0);
        assert_eq!(all(&bench), n as u64 + 1);
    }
}

#[test]
fn where_answers_do_not_pass_the_handshake_is_timed() {
    let mut world = World::dsr();
    for target in &mut world.services[0].targets {
        (target.deliver, target.port) = (Deliver::Uplink, UPLINK + 1);
    }
    let mut bench = Bench::ready(world);
    bench.maps().write_sampling(1).unwrap();
    let mut send = |flags| {
        let ran = bench.run(Hook::Tc(UPLINK), &tcp_packet(true, 7000, flags).build());
        assert_eq!(ran.verdict, Verdict::Redirect);
        all(&bench)
    };
    assert_eq!(send(SYN), 0);
    assert_eq!(send(SYN), 0, "again");
    assert_eq!(send(ACK), 1, "the client has the answer");
    assert_eq!((send(ACK | PSH), send(ACK), send(ACK | RST)), (1, 1, 1));
}

#[test]
fn one_flow_in_many_is_timed_and_all_are_treated_alike() {
    for nat in [false, true] {
        let mut bench = Bench::ready(if nat { World::nat() } else { World::dsr() });
        let round = |bench: &mut Bench| {
            let mut rans = Vec::new();
            for port in 30_000..30_100_u16 {
                for flags in [SYN, ACK, ACK | PSH] {
                    rans.push(bench.run(HOOKS[0], &tcp_packet(true, port, flags).build()));
                }
                let vm = rans.last().map_or(1, lbx_tests::bpf::Ran::vm);
                let frame = answer(nat, true, vm, port, b"an answer");
                rans.push(bench.run(Hook::Tc(vm.into()), &frame));
            }
            rans
        };
        bench.maps().write_sampling(0).unwrap();
        round(&mut bench);
        let plain = round(&mut bench);
        assert_eq!(all(&bench), 0);
        bench.maps().write_sampling(4).unwrap();
        let timed = round(&mut bench);
        for (n, (timed, plain)) in timed.iter().zip(&plain).enumerate() {
            assert_eq!(timed, plain, "packet {n}");
        }
        let n = all(&bench);
        assert!((8..=45).contains(&n), "{n} of 100");
    }
}
