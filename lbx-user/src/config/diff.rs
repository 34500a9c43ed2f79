//! What a reload changes: what is not in this list keeps its weights, states and flows.

use std::fmt;

use serde::Serialize;

use super::checked::{Config, Health, Service, Switch, Target, format_mac};
use super::units::format_duration;

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `[daemon]`.
    Daemon,
    /// `[limits]`: takes effect with new maps.
    Limits,
    /// `[timeouts]`.
    Timeouts,
    /// `[measure]`.
    Measure,
    /// `[weights]`.
    Weights,
    /// `[peers]` and `[[peer]]`.
    Peers,
    /// `[migration]`.
    Migration,
    /// `[libvirt]`.
    Libvirt,
    /// A switch by name.
    Switch(String),
    /// A service by name.
    Service(String),
    /// A target by its service's name and its own ([`Target::name`]).
    Target {
        /// The service's name.
        service: String,
        /// The target's name.
        target: String,
    },
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// One of its keys has another value.
    Changed {
        /// The key as the file names it.
        key: &'static str,
        /// The value it had.
        old: String,
        /// The value it has.
        new: String,
    },
}

/// One difference between two configs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about.
    pub scope: Scope,
    /// What happened.
    pub kind: ChangeKind,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("daemon"),
            Self::Limits => f.write_str("limits"),
            Self::Timeouts => f.write_str("timeouts"),
            Self::Measure => f.write_str("measure"),
            Self::Weights => f.write_str("weights"),
            Self::Peers => f.write_str("peers"),
            Self::Migration => f.write_str("migration"),
            Self::Libvirt => f.write_str("libvirt"),
            Self::Switch(name) => write!(f, "switch {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Target { service, target } => write!(f, "target {service}/{target}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ChangeKind::Added => write!(f, "{}: added", self.scope),
            ChangeKind::Removed => write!(f, "{}: removed", self.scope),
            ChangeKind::Changed { key, old, new } => write!(f, "{}: {key} {old} -> {new}", self.scope),
        }
    }
}

type Fields = Vec<(&'static str, String)>;

/// See [`Config::diff`].
pub(super) fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    fields(&mut changes, &Scope::Daemon, daemon(old), daemon(new));
    fields(&mut changes, &Scope::Limits, limits(old), limits(new));
    fields(&mut changes, &Scope::Timeouts, timeouts(old), timeouts(new));
    fields(&mut changes, &Scope::Measure, measure(old), measure(new));
    fields(&mut changes, &Scope::Weights, weights(old), weights(new));
    fields(&mut changes, &Scope::Peers, peers(old), peers(new));
    fields(&mut changes, &Scope::Migration, migration(old), migration(new));
    fields(&mut changes, &Scope::Libvirt, libvirt(old), libvirt(new));
    each(
        &mut changes,
        (&old.switches, &new.switches),
        |switch| Scope::Switch(switch.name.clone()),
        switch,
        |_, _, _| {},
    );
    each(
        &mut changes,
        (&old.services, &new.services),
        |service| Scope::Service(service.name.clone()),
        service,
        |changes, before, after| {
            let name = after.or(before).map(|service| service.name.clone()).unwrap_or_default();
            let of = |service: Option<&Service>| service.map(|s| s.targets.clone()).unwrap_or_default();
            each(
                changes,
                (&of(before), &of(after)),
                |target| Scope::Target { service: name.clone(), target: target.name() },
                target,
                |_, _, _| {},
            );
        },
    );
    changes
}

/// Compare two lists whose items are told apart by their scope: removed first, then in the new order.
fn each<T>(
    changes: &mut Vec<Change>,
    (old, new): (&[T], &[T]),
    scope: impl Fn(&T) -> Scope,
    read: impl Fn(&T) -> Fields,
    mut inside: impl FnMut(&mut Vec<Change>, Option<&T>, Option<&T>),
) {
    for before in old {
        let name = scope(before);
        if !new.iter().any(|after| scope(after) == name) {
            changes.push(Change { scope: name, kind: ChangeKind::Removed });
            inside(changes, Some(before), None);
        }
    }
    for after in new {
        let name = scope(after);
        let before = old.iter().find(|before| scope(before) == name);
        match before {
            Some(before) => fields(changes, &name, read(before), read(after)),
            None => changes.push(Change { scope: name, kind: ChangeKind::Added }),
        }
        inside(changes, before, Some(after));
    }
}

fn fields(changes: &mut Vec<Change>, scope: &Scope, old: Fields, new: Fields) {
    for ((key, old), (_, new)) in old.into_iter().zip(new) {
        if old != new {
            changes.push(Change { scope: scope.clone(), kind: ChangeKind::Changed { key, old, new } });
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// The word the config file uses for an enum's value.
fn word(value: &impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn daemon(config: &Config) -> Fields {
    let daemon = &config.daemon;
    vec![
        ("socket", daemon.socket.display().to_string()),
        ("metrics_listen", or_none(daemon.metrics_listen)),
        ("vm_users", list(&daemon.vm_users)),
    ]
}

fn limits(config: &Config) -> Fields {
    let limits = &config.limits;
    vec![
        ("flows", limits.flows.to_string()),
        ("services", limits.services.to_string()),
        ("targets", limits.targets.to_string()),
        ("table_size", limits.table_size.to_string()),
    ]
}

fn timeouts(config: &Config) -> Fields {
    let timeouts = &config.timeouts;
    vec![
        ("tcp_established", format_duration(timeouts.tcp_established)),
        ("tcp_new", format_duration(timeouts.tcp_new)),
        ("tcp_closed", format_duration(timeouts.tcp_closed)),
        ("udp", format_duration(timeouts.udp)),
        ("other", format_duration(timeouts.other)),
        ("learn", format_duration(timeouts.learn)),
    ]
}

fn measure(config: &Config) -> Fields {
    let measure = &config.measure;
    vec![
        ("load", format_duration(measure.load)),
        ("queues", measure.queues.map_or_else(|| "off".to_owned(), format_duration)),
        ("response", or_none(measure.response)),
        ("qmp", or_none(measure.qmp.as_ref())),
    ]
}

fn weights(config: &Config) -> Fields {
    let weights = &config.weights;
    vec![
        ("availability", weights.availability.to_string()),
        ("interval", format_duration(weights.interval)),
        ("fast", format_duration(weights.fast)),
        ("slow", format_duration(weights.slow)),
        ("step", weights.step.to_string()),
        ("dead_band", weights.dead_band.to_string()),
        ("floor", weights.floor.to_string()),
        ("slow_start", format_duration(weights.slow_start)),
        ("stale_after", format_duration(weights.stale_after)),
        ("decay", format_duration(weights.decay)),
    ]
}

fn peers(config: &Config) -> Fields {
    let peers = config.peers.as_ref();
    let file = |path: fn(&super::Peers) -> &std::path::PathBuf| or_none(peers.map(|one| path(one).display()));
    let others = peers.map(|peers| peers.others.as_slice()).unwrap_or_default();
    let end = |peer: &super::Peer| {
        let mtu = peer.tunnel_mtu.map_or(String::new(), |mtu| format!(" ({mtu} bytes)"));
        peer.tunnel.map_or(String::new(), |end| format!(" tunnel {end}{mtu}"))
    };
    let others: Vec<String> =
        others.iter().map(|peer| format!("{}@{}{}", peer.name, peer.address, end(peer))).collect();
    vec![
        ("name", or_none(peers.map(|peers| &peers.name))),
        ("listen", or_none(peers.map(|peers| peers.listen))),
        ("ca", file(|peers| &peers.ca)),
        ("certificate", file(|peers| &peers.certificate)),
        ("key", file(|peers| &peers.key)),
        (
            "tunnel",
            or_none(
                peers
                    .and_then(|peers| peers.tunnel)
                    .map(|end| format!("{} network {} port {}", end.address, end.vni, end.port)),
            ),
        ),
        ("peer", if others.is_empty() { "none".to_owned() } else { others.join(" ") }),
    ]
}

fn migration(config: &Config) -> Fields {
    let (migration, watchdog) = (&config.migration, &config.migration.watchdog);
    vec![
        ("blackhole", word(&migration.blackhole)),
        ("stopped", word(&migration.stopped)),
        ("share", migration.share.to_string()),
        ("drain", format_duration(migration.drain)),
        ("udp", format_duration(migration.udp)),
        ("slow_start", format_duration(migration.slow_start)),
        ("watchdog.announced", format_duration(watchdog.announced)),
        ("watchdog.transferring", format_duration(watchdog.transferring)),
        ("watchdog.stopped", format_duration(watchdog.stopped)),
        ("watchdog.resumed", format_duration(watchdog.resumed)),
    ]
}

fn libvirt(config: &Config) -> Fields {
    let text = match &config.libvirt.sockets {
        Some(sockets) => list(&sockets.iter().map(|socket| socket.display()).collect::<Vec<_>>()),
        None => "found".to_owned(),
    };
    vec![("sockets", text)]
}

fn switch(switch: &Switch) -> Fields {
    vec![
        ("xdp", word(&switch.xdp)),
        ("tc", word(&switch.tc)),
        ("uplinks", switch.uplinks.as_ref().map_or_else(|| "found".to_owned(), |names| list(names))),
    ]
}

fn service(service: &Service) -> Fields {
    let ports = match (service.ports.first, service.ports.last) {
        (0, u16::MAX) => "0".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let answer = match &service.answer {
        super::Answer::Link(name) => format!("link:{name}"),
        other => word(other),
    };
    vec![
        ("switch", service.switch.clone()),
        ("vlan", or_none(service.vlan)),
        ("vip", list(&service.vips)),
        ("protocol", word(&service.protocol)),
        ("port", ports),
        ("forward", word(&service.forward)),
        ("deliver", word(&service.deliver)),
        ("algorithm", word(&service.algorithm)),
        ("choose_queue", service.choose_queue.to_string()),
        ("answer", answer),
        ("no_target", word(&service.no_target)),
        ("bypass_filters", service.bypass_filters.to_string()),
        ("exclusive", service.exclusive.to_string()),
        ("max_new_flows_per_second", or_none(service.max_new_flows_per_second)),
        ("max_flow_table_percent", or_none(service.max_flow_table_percent)),
        ("table_size", service.table_size.to_string()),
        ("weights", word(&service.weights)),
        ("availability", or_none(service.availability.as_ref())),
        ("health", health(&service.health)),
    ]
}

fn health(health: &Health) -> String {
    let checks: Vec<String> = health.checks.iter().map(ToString::to_string).collect();
    if checks.is_empty() { "none".to_owned() } else { checks.join(", ") }
}

fn target(target: &Target) -> Fields {
    let place = match &target.place {
        super::Place::Vm(name) => format!("vm {name}"),
        super::Place::Nic(name) => format!("nic {name}"),
        super::Place::Mac(mac) => format!("mac {}", format_mac(mac)),
    };
    vec![
        ("place", place),
        ("weight", target.weight.to_string()),
        ("queues", if target.queues.is_empty() { "same".to_owned() } else { list(&target.queues) }),
        ("address", or_none(target.address)),
        ("address6", or_none(target.address6)),
        ("qmp", or_none(target.qmp.as_ref().map(|path| path.display()))),
    ]
}
