//! A million mutated packets: no abort, what passes is untouched, every drop has a name, and the counters add up.
//!
//! `LBX_SEED` (a number) gives other packets. A frame that breaks a rule is printed; put it into
//! `tests/regressions/`, from where it is replayed for good.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use lbx_common::reason::{Kind, Reason};
use lbx_tests::bpf::bench::hex;
use lbx_tests::bpf::mutate::{Rng, SERVICES, blackhole, mutate, seeds, world};
use lbx_tests::bpf::{Bench, Hook, Verdict};

/// Packets that are run.
const PACKETS: u64 = 1_000_000;
/// Of so many, one is left as it is.
const VALID: usize = 3;
/// The seed unless `LBX_SEED` names another.
const SEED: u64 = 0x1b_2026;

/// What came out, counted here, by the verdicts and the bytes alone.
#[derive(Default, Debug)]
struct Seen {
    passed_untouched: u64,
    /// Rewritten and left to the bridge.
    bridged: u64,
    /// Translated back.
    returned: u64,
    dropped: u64,
    redirected: u64,
    /// Frames the test run itself refuses (an skb without its network header).
    refused: u64,
}

/// Whether the only difference is the destination MAC, and that is a VM's.
fn for_the_bridge(before: &[u8], after: &[u8]) -> bool {
    before.len() == after.len() && before[6..] == after[6..] && after[..5] == [2, 0, 0, 0, 1]
}

/// Runs a frame and judges what came out; `Err` says what is wrong.
fn one(bench: &mut Bench, hook: Hook, frame: &[u8], seen: &mut Seen) -> Result<(), String> {
    let Ok((verdict, out)) = bench.runner(hook).run(frame, 0) else {
        seen.refused += 1;
        return if matches!(hook, Hook::Tc(_)) { Ok(()) } else { Err("the test run refused it".into()) };
    };
    match verdict {
        Verdict::Drop => seen.dropped += 1,
        Verdict::Redirect => seen.redirected += 1,
        Verdict::Pass if out == frame => seen.passed_untouched += 1,
        Verdict::Pass if for_the_bridge(frame, out) => seen.bridged += 1,
        Verdict::Pass if hook == Hook::Tc(1) || hook == Hook::Tc(2) => {
            // Only addresses, ports and checksums change on the way back.
            if out.len() != frame.len() || out[..14] != frame[..14] {
                return Err(format!("passed with other bytes than addresses changed: {}", hex(out)));
            }
            seen.returned += 1;
        }
        Verdict::Pass => return Err(format!("passed, but changed: {}", hex(out))),
        Verdict::Other(action) => return Err(format!("action {action}")),
    }
    Ok(())
}

#[test]
fn a_million_mutated_packets() {
    let seed = std::env::var("LBX_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(SEED);
    println!("seed {seed} (LBX_SEED={seed} repeats this run)");
    let mut rng = Rng(seed);
    let mut bench = Bench::ready(world());
    for hook in [Hook::Xdp(0), Hook::Tc(0), Hook::Tc(1), Hook::Tc(2)] {
        bench.runner(hook);
    }
    let seeds = seeds();
    blackhole(&mut bench, &seeds);
    let before = bench.counters();
    let mut seen = Seen::default();
    let start = Instant::now();
    let mut frame = Vec::new();
    for n in 0..PACKETS {
        let (kind, frames) = &seeds[rng.below(seeds.len())];
        let (hook, from) = &frames[rng.below(frames.len())];
        frame.clear();
        frame.extend(from);
        if !rng.one_in(VALID) {
            let (_, others) = &seeds[rng.below(seeds.len())];
            for _ in 0..=rng.below(2) {
                let (_, other) = &others[rng.below(others.len())];
                mutate(&mut rng, &mut frame, other);
            }
        }
        if let Err(e) = one(&mut bench, *hook, &frame, &mut seen) {
            panic!("packet {n}, from \"{kind}\", at {hook:?}: {e}\n  in {}", hex(&frame));
        }
    }
    let took = start.elapsed();
    let now = bench.counters();
    let reasons: BTreeMap<&str, u64> =
        Reason::ALL.iter().map(|r| (r.name(), now.reason(*r) - before.reason(*r))).collect();
    let of = |name: &str| reasons[name];
    let kind =
        |kind| -> u64 { Reason::ALL.iter().filter(|r| r.kind() == kind).map(|r| reasons[r.name()]).sum() };
    let mut packets = BTreeMap::new();
    let mut flows = 0;
    for (index, service, _) in bench.world.targets() {
        let (a, b) = (now.targets[index as usize], before.targets[index as usize]);
        *packets.entry(SERVICES[service].0).or_insert(0) += a.packets - b.packets;
        flows += a.flows - b.flows;
    }
    let steered: u64 = packets.values().sum();
    let returns: u64 = now.services.iter().zip(&before.services).map(|(a, b)| a.returns - b.returns).sum();

    let malformed = ["bad_ip_header", "bad_ip_length", "truncated_l4", "bad_l4_length"];
    let malformed: u64 = malformed.iter().map(|r| of(r)).sum();
    let drops = kind(Kind::Drop);
    let none_of_ours = seen.passed_untouched.saturating_sub(kind(Kind::Pass));
    let mut steps = vec![
        ("none of ours: passed".to_owned(), none_of_ours),
        ("parsed, to a VIP".into(), PACKETS - seen.refused - none_of_ours),
        ("a VIP, but no service".into(), of("not_a_service")),
        ("not addressed to the switch".into(), of("not_addressed")),
        ("malformed: dropped".into(), malformed),
        ("first packet of a flow".into(), flows),
        ("packet of a known flow".into(), steered.saturating_sub(flows)),
        ("known flow, blackholed".into(), of("blackholed")),
        ("no target: dropped".into(), of("no_target")),
        ("no target: reset".into(), of("rejected_reset")),
        ("no target: unreachable".into(), of("rejected_unreachable")),
        ("too big: answered".into(), of("too_big_answered")),
        ("later fragment after its first".into(), of("fragment_followed")),
        ("ICMP error after its flow".into(), of("icmp_followed")),
        ("ARP answered".into(), of("arp_answered")),
        ("neighbour solicitation answered".into(), of("nd_answered")),
        ("echo answered".into(), of("echo_answered")),
        ("left to the bridge".into(), seen.bridged),
        ("nat: translated back".into(), returns),
        ("nat: direct, left alone".into(), of("not_translated")),
    ];
    for (name, _, _) in SERVICES {
        let n = packets[name];
        if !["rejecting, TCP", "rejecting, UDP", "blackholed", "without a target", "narrow"].contains(name) {
            steps.push((format!("steered: {name}"), n));
        }
    }
    let mut table = String::new();
    for (name, n) in &steps {
        let _ = writeln!(table, "  {n:>8}  {:>6.2} %  {name}", *n as f64 * 100.0 / PACKETS as f64);
    }
    println!(
        "{PACKETS} packets in {took:.1?} ({:.2} us each)\n{table}\n{seen:?}",
        took.as_micros() as f64 / PACKETS as f64
    );
    for (name, n) in reasons.iter().filter(|(_, n)| **n > 0) {
        println!("  {n:>8}  {name}");
    }

    // Every drop is named, and nothing else is counted as one.
    assert_eq!(seen.dropped, drops, "drops seen, drops counted");
    // Every redirect is a packet for a target or an answer; the bridge's are for targets too.
    assert_eq!(
        seen.redirected + seen.bridged,
        steered + kind(Kind::Answer),
        "redirects and packets of targets"
    );
    // What is translated back is counted by the service, or follows a fragment that was.
    let by_fragment = seen.returned.checked_sub(returns);
    assert!(by_fragment.is_some_and(|n| n <= of("fragment_followed")), "{} {returns}", seen.returned);
    assert!(kind(Kind::Pass) <= seen.passed_untouched, "reasons to pass, packets passed");
    let all =
        seen.passed_untouched + seen.bridged + seen.returned + seen.dropped + seen.redirected + seen.refused;
    assert_eq!(all, PACKETS, "verdicts");
    assert_eq!(of("internal"), 0);
    assert!(seen.refused < PACKETS / 50, "{} packets were not run", seen.refused);
    for (name, n) in &steps {
        assert!(*n >= PACKETS / 100, "less than 1 % of the packets reach \"{name}\": {n}");
    }
    assert!(took < Duration::from_mins(1), "{took:?}");
}

/// A line of a regression file: `xdp` or `tc`, the index of the port, the bytes. `#` begins a comment.
fn parse(line: &str) -> Option<(Hook, Vec<u8>)> {
    let mut words = line.split('#').next()?.split_whitespace();
    let (hook, port, bytes) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let hook = if hook == "xdp" { Hook::Xdp(port) } else { Hook::Tc(port) };
    let bytes = (0..bytes.len() / 2).map(|n| u8::from_str_radix(&bytes[2 * n..2 * n + 2], 16).ok());
    Some((hook, bytes.collect::<Option<_>>()?))
}

#[test]
fn regressions_are_replayed() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let mut bench = Bench::ready(world());
    let mut replayed = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().extension().is_none_or(|e| e != "hex") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let (hook, frame) = parse(line).unwrap_or_else(|| panic!("{:?}: {line}", entry.path()));
            bench.runner(hook);
            let (drops_before, mut seen) = (drops(&bench), Seen::default());
            if let Err(e) = one(&mut bench, hook, &frame, &mut seen) {
                panic!("{:?}: {e}\n  {line}", entry.path());
            }
            assert_eq!(drops(&bench) - drops_before, seen.dropped, "{line}");
            replayed += 1;
        }
    }
    println!("{replayed} frames replayed");
    assert!(replayed > 0);
}

fn drops(bench: &Bench) -> u64 {
    let counters = bench.counters();
    counters.reasons().filter(|(r, _)| r.kind() == Kind::Drop).map(|(_, n)| n).sum()
}
