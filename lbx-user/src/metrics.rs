//! Prometheus: the same names and figures as the CLI, built anew for each scrape from the view of the maps.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Result;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::model::{self, ServiceCounters};
use crate::daemon::core::Core;
use crate::measure::board::Board;
use crate::measure::catalogue::{About, METRICS};

mod histogram;

/// What the text is (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// Name and help of a counter, and where its value is.
type Count<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Collects families and writes them.
struct Book(Registry);

impl Book {
    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Gauges::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }
}

/// Everything as text.
///
/// # Errors
/// The maps could not be read.
pub fn text(core: &Core) -> Result<String> {
    let mut book = Book(Registry::with_prefix("lbx"));
    instance(core, &mut book)?;
    services(core, &mut book)?;
    targets(core, &mut book)?;
    peers(core, &mut book);
    migrations(core, &mut book);
    measured(&core.board.lock(), Instant::now(), core.config.measure.stale(), &mut book);
    let mut text = String::new();
    encode(&mut text, &book.0)?;
    Ok(text)
}

fn instance(core: &Core, book: &mut Book) -> Result<()> {
    let (status, stats) = (core.status()?, core.view()?.stats()?);
    let flag = |on: bool| [(Labels::new(), f64::from(u8::from(on)))];
    book.gauge("bypass", "Every packet passes as on a plain bridge", flag(status.bypass));
    book.gauge("observe", "Verdicts are computed, packets pass", flag(status.observe));
    book.gauge(
        "flows_live",
        "Recorded flows that have not expired",
        [(Labels::new(), status.flows.live as f64)],
    );
    book.gauge("flows_capacity", "Flows there is room for", [(Labels::new(), status.flows.capacity as f64)]);
    let reasons =
        stats.reasons.into_iter().map(|one| (vec![("reason", one.name), ("kind", one.kind)], one.count));
    book.counter("packets", "Packets by what happened to them, and why", reasons);
    let held = core.health().checks.into_iter().filter(|check| check.state != "unknown");
    let up = held.map(|check| {
        (vec![("target", check.target), ("check", check.kind)], f64::from(u8::from(check.state == "up")))
    });
    book.gauge("health_up", "The target passes the check", up);
    let told = [(Labels::new(), core.queues_told())];
    book.counter("queues_told", "Looks at queues because the kernel told of one that grows", told);
    Ok(())
}

fn migrations(core: &Core, book: &mut Book) {
    let ledger = &core.migrations.ledger;
    let under_way = ledger.open.values().map(|record| {
        let machine = &record.machine;
        let labels = [("role", machine.role.name()), ("phase", machine.phase.name())];
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        ([("vm", record.vm.to_string())].into_iter().chain(labels).collect(), 1.0)
    });
    book.gauge(
        "migration",
        "Migrations that want something of targets, by what this host is to them",
        under_way,
    );
    let ended = ledger.ended();
    let ended = ended.iter().map(|(phase, count)| (vec![("phase", phase.name().to_owned())], *count));
    book.counter("migrations_ended", "Migrations that ended, and how", ended);
    let (delivered, lost) = core.waited();
    let waited = [("delivered", delivered), ("lost", lost)];
    let waited = waited.map(|(what, packets)| (vec![("outcome", what.to_owned())], packets));
    book.counter("migration_waited", "Packets that waited for a VM at its new host", waited);
}

fn services(core: &Core, book: &mut Book) -> Result<()> {
    let services = core.services()?.services;
    let label = |name: &str| vec![("service", name.to_owned())];
    let active = services.iter().map(|one| (label(&one.name), f64::from(u8::from(one.active))));
    book.gauge("service_active", "The service is steered", active);
    let counts: [Count<ServiceCounters>; 6] = [
        ("service_flows_recorded", "New flows recorded", |one| one.flows_recorded),
        ("service_flows_unrecorded", "Packets of new flows served without a record", |one| {
            one.flows_unrecorded
        }),
        ("service_drops", "Packets dropped", |one| one.drops),
        ("service_rejects", "Packets answered with a reset or unreachable", |one| one.rejects),
        ("service_returns", "Answers of nat targets translated back", |one| one.returns),
        ("service_observed", "Packets that would have been steered while observing", |one| one.observed),
    ];
    for (name, help, value) in counts {
        book.counter(name, help, services.iter().map(|one| (label(&one.name), value(&one.counters))));
    }
    Ok(())
}

fn targets(core: &Core, book: &mut Book) -> Result<()> {
    let targets = core.targets()?.targets;
    let label = |one: &model::Target| vec![("service", one.service.clone()), ("target", one.target.clone())];
    let counts: [Count<model::Counters>; 4] = [
        ("target_packets", "Packets steered to the target", |one| one.packets),
        ("target_bytes", "Bytes of these", |one| one.bytes),
        ("target_flows", "New flows bound to it", |one| one.flows),
        ("target_drops", "Packets dropped because of its state", |one| one.drops),
    ];
    for (name, help, value) in counts {
        book.counter(name, help, targets.iter().map(|one| (label(one), value(&one.counters))));
    }
    let weights = targets.iter().map(|one| (label(one), one.weight as f64));
    book.gauge("target_weight", "Weight in force, over all queues", weights);
    let live = targets.iter().map(|one| (label(one), one.live_flows as f64));
    book.gauge("target_flows_live", "Recorded flows to the target", live);
    let mut times = Vec::new();
    for one in targets.iter().filter(|one| one.responses > 0) {
        times.push((label(one), core.datapath.maps().response(one.index.into())?));
    }
    book.0.register_collector(Box::new(histogram::Responses(times)));
    let states = targets.iter().flat_map(|one| {
        lbx_common::target::State::ALL.into_iter().map(move |state| {
            let mut labels = label(one);
            labels.push(("state", state.name().to_owned()));
            (labels, f64::from(u8::from(one.effective == state.name())))
        })
    });
    book.gauge("target_state", "1 for the state the target is in", states);
    Ok(())
}

fn peers(core: &Core, book: &mut Book) {
    let answer = core.peers();
    if answer.name.is_none() {
        return;
    }
    let label = |peer: &model::Peer| vec![("peer", peer.name.clone())];
    let up = |line: &model::Line| f64::from(u8::from(line.up));
    let told = answer.peers.iter().map(|one| (label(one), up(&one.told)));
    book.gauge("peer_told", "The peer is reached, and told of what happens here", told);
    let heard = answer.peers.iter().map(|one| (label(one), up(&one.heard)));
    book.gauge("peer_heard", "The peer is connected to this host, and heard", heard);
    let refused = answer.refused.into_iter().map(|one| (vec![("reason", one.reason)], one.count));
    book.counter("peers_refused", "Connections refused, or closed for what came over them", refused);
}

/// Every reading of the board, as `measured_NAME`. A stale one is left out: a series that ends is how Prometheus
/// knows. Its age goes on growing in `measured_age_seconds`.
fn measured(board: &Board, now: Instant, stale: Duration, book: &mut Book) {
    let mut ages = Vec::new();
    for metric in METRICS {
        let label = |name: &str| match (metric.about, name.split_once('/')) {
            (About::Host, _) => Labels::new(),
            (About::Target, Some((service, target))) => {
                vec![("service", service.to_owned()), ("target", target.to_owned())]
            }
            (About::Target, None) => vec![("target", name.to_owned())],
            (About::Vm, _) => vec![("vm", name.to_owned())],
        };
        let mut fresh = Vec::new();
        for name in board.names(metric.about) {
            let Some(reading) = board.get(metric, name) else { continue };
            let age = reading.age(now);
            if age <= stale {
                fresh.push((label(name), reading.value));
            }
            let mut labels = label(name);
            labels.push(("metric", metric.name.to_owned()));
            ages.push((labels, age.as_secs_f64()));
        }
        if !fresh.is_empty() {
            book.gauge(&format!("measured_{}", metric.name), metric.what, fresh);
        }
    }
    book.gauge("measured_age_seconds", "Age of the last reading of a metric", ages);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::board::Reading;
    use crate::measure::catalogue::find;

    #[test]
    fn readings_are_told_while_they_are_fresh() {
        let (mut board, then) = (Board::default(), Instant::now());
        let now = then + Duration::from_secs(9);
        let reading = |value, at| Reading { value, at, source: "test", cost: Duration::ZERO };
        board.put(find("vm_cpu").unwrap(), "web-1", reading(0.5, now));
        board.put(find("vm_cpu").unwrap(), "web-2", reading(0.25, then));
        board.put(find("host_cpu").unwrap(), "", reading(1.0, now));
        board.put(find("healthy").unwrap(), "web/web-1", reading(1.0, now));
        let mut book = Book(Registry::with_prefix("lbx"));
        measured(&board, now, Duration::from_secs(4), &mut book);
        let mut text = String::new();
        encode(&mut text, &book.0).unwrap();
        for line in [
            "lbx_measured_vm_cpu{vm=\"web-1\"} 0.5",
            "lbx_measured_host_cpu{} 1.0",
            "lbx_measured_healthy{service=\"web\",target=\"web-1\"} 1.0",
            "lbx_measured_age_seconds{vm=\"web-2\",metric=\"vm_cpu\"} 9.0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("lbx_measured_vm_cpu{vm=\"web-2\"}"), "{text}");
    }
}
