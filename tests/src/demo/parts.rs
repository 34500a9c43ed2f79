//! The parts of the demo, in the order they are told.

mod drain;
mod kill;
mod migrate;
mod setting;
mod shares;
mod throttle;
mod why;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::claims::Claim;
use super::stage::Stage;
use super::story::Story;
use crate::lab::client::load::{Load, Report};
use crate::lab::client::{PerVm, shares as shares_of, worst_deviation};

pub use drain::drain;
pub use kill::kill;
pub use migrate::migrate;
pub use setting::{build, plan};
pub use shares::{reweigh, shares, translate};
pub use throttle::throttle;
pub use why::explain;

/// New connections of each family in the parts that judge shares.
const CONNECTIONS: u64 = 12_000;
/// Threads of a load that judges shares: enough to keep three guests busy.
const THREADS: usize = 24;
/// How far a share may be off, in percentage points.
const POINTS: f64 = 2.0;
/// No request takes longer and still counts.
const LIMIT: Duration = Duration::from_secs(10);

/// One request per connection, from all source addresses.
fn fresh(stage: &Stage, server: SocketAddr, connections: u64) -> Load {
    Load { sources: stage.sources(), threads: THREADS, limit: LIMIT, ..Load::new(server, connections) }
}

/// Connections that stay: `requests` on each, one every 100 ms.
fn staying(stage: &Stage, server: SocketAddr, connections: usize, requests: u64) -> Load {
    Load {
        sources: stage.sources(),
        connections: Some(connections as u64),
        threads: connections,
        requests_per_connection: requests,
        pause: Duration::from_millis(100),
        limit: LIMIT,
        ..Load::new(server, 0)
    }
}

/// New connections without end, a few at a time.
fn trickle(stage: &Stage, server: SocketAddr) -> Load {
    let pause = Duration::from_millis(10);
    Load { sources: stage.sources(), threads: 4, pause, limit: LIMIT, ..Load::endless(server) }
}

/// The first error of several reports, for a claim that does not hold.
fn tell_errors(story: &Story, reports: &[&Report]) {
    for error in reports.iter().flat_map(|r| &r.errors).take(5) {
        story.say(&format!("A client says: {error}"));
    }
}

/// Adds up counts by VM.
fn sum<'a, C: IntoIterator<Item = &'a PerVm>>(counts: C) -> PerVm {
    let mut total = PerVm::new();
    for (vm, n) in counts.into_iter().flatten() {
        *total.entry(vm.clone()).or_default() += n;
    }
    total
}

/// Weights against flows against answers, VM by VM; claims that both follow the weights.
fn judge(story: &mut Story, what: &str, weights: &BTreeMap<String, u32>, flows: &PerVm, answers: &PerVm) {
    let total: f64 = weights.values().map(|w| f64::from(*w)).sum();
    let (flow_shares, answer_shares) = (shares_of(flows), shares_of(answers));
    let heading =
        ["VM", "weight", "share wanted", "flows (lbx's map)", "share", "answers (clients)", "share"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for (vm, weight) in weights {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let share = |shares: &BTreeMap<String, f64>| percent(shares.get(vm).copied().unwrap_or(0.0));
        let count = |counts: &PerVm| counts.get(vm).copied().unwrap_or(0).to_string();
        rows.push(vec![
            vm.clone(),
            weight.to_string(),
            percent(f64::from(*weight) / total),
            count(flows),
            share(&flow_shares),
            count(answers),
            share(&answer_shares),
        ]);
    }
    story.table(&rows);
    let worst = worst_deviation(flows, weights).max(worst_deviation(answers, weights));
    story.claim(Claim::at_most(&format!("{what}: largest error of a share"), worst, "points", POINTS));
}
