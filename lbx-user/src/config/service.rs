//! `[[service]]`, with its targets and its health checks.

mod health;
mod target;

use std::net::IpAddr;
use std::ops::Range;

use super::build::{choice, interface, table_size};
use super::checked::{
    Algorithm, Answer, Delivery, Forward, Limits, NoTarget, Ports, Protocol, Service, Switch,
};
use super::problem::did_you_mean;
use super::raw::{At, Table};
use super::units;
use super::weights::{self, Weighing};

/// Most weight a target can have; `lbx set weight` has the same bound.
pub const MAX_WEIGHT: u64 = 1_000_000;

/// Algorithms that the field knows by name and this version does not have yet.
const LATER: [&str; 20] = [
    "rr",
    "round-robin",
    "wrr",
    "weighted-round-robin",
    "lc",
    "least-connection",
    "wlc",
    "weighted-least-connection",
    "lblc",
    "locality-based-least-connection",
    "lblcr",
    "locality-based-least-connection-replication",
    "dh",
    "destination-hash",
    "sh",
    "source-hash",
    "sed",
    "shortest-expected-delay",
    "nq",
    "never-queue",
];

/// A service and the places that later checks point at.
#[derive(Debug)]
pub(super) struct ReadService {
    pub(super) service: Service,
    pub(super) path: String,
    pub(super) name_span: Range<usize>,
    pub(super) vip_spans: Vec<Range<usize>>,
    pub(super) port_span: Range<usize>,
}

/// Every `[[service]]`, and the checks that need all of them.
pub(super) fn read_all(root: &Table<'_, '_>, switches: &[At<Switch>], limits: &Limits) -> Vec<ReadService> {
    let mut services: Vec<ReadService> = Vec::new();
    let tables = root.tables("service");
    for table in &tables {
        let Some(service) = read(table, switches, limits) else { continue };
        if let Some(earlier) = services.iter().find(|other| other.service.name == service.service.name) {
            let line = root.report().line(&earlier.name_span);
            table.error("name", format!("the name is already taken on line {line}"), None);
        }
        services.push(service);
    }
    if tables.len() > limits.services as usize {
        let (found, most) = (tables.len(), limits.services);
        root.error("service", format!("{found} services, but `limits.services` is {most}"), None);
    }
    let targets: usize = services.iter().map(|service| service.service.targets.len()).sum();
    if targets > limits.targets as usize {
        let most = limits.targets;
        root.error("service", format!("{targets} targets, but `limits.targets` is {most}"), None);
    }
    services
}

fn read(table: &Table<'_, '_>, switches: &[At<Switch>], limits: &Limits) -> Option<ReadService> {
    let name = table.required_string("name").filter(|name| service_name(table, name));
    let switch = table.required_string("switch");
    if let Some(switch) = &switch {
        known_switch(table, &switch.value, switches);
    }
    let vlan = table.integer("vlan", 1..=4_094).map(|vlan| vlan.value as u16);
    let (vips, vip_spans) = vips(table);
    let protocol = protocol(table);
    let ports = ports(table);
    let forward = forward(table);
    let deliver = choice(
        table,
        "deliver",
        &[("auto", Delivery::Auto), ("redirect", Delivery::Redirect), ("bridge", Delivery::Bridge)],
    );
    let algorithm = algorithm(table);
    let choose_queue = table.boolean("choose_queue").is_some_and(|flag| flag.value);
    let answer = answer(table);
    let no_target = choice(table, "no_target", &[("reject", NoTarget::Reject), ("drop", NoTarget::Drop)]);
    let bypass_filters = table.boolean("bypass_filters").is_some_and(|flag| flag.value);
    let exclusive = table.boolean("exclusive").is_some_and(|flag| flag.value);
    let max_new_flows = table.integer("max_new_flows_per_second", 1..=100_000_000);
    let max_flow_table = table.integer("max_flow_table_percent", 1..=100);
    let own_table_size = table_size(table);
    let weighing =
        choice(table, "weights", &[("static", Weighing::Static), ("adaptive", Weighing::Adaptive)]);
    let weighing = weighing.unwrap_or_default();
    let availability = weights::availability(table);
    if availability.is_some() && weighing == Weighing::Static {
        let hint = "add `weights = \"adaptive\"`";
        table.warn(
            "availability",
            "the service's weights are static, so nothing uses it",
            Some(hint.to_owned()),
        );
    }

    if exclusive && forward == Some(Forward::Dsr) {
        table.error("exclusive", "only `forward = \"nat\"` translates replies", Some("remove it".to_owned()));
    }
    if max_flow_table.is_some() && forward == Some(Forward::Nat) {
        table.error(
            "max_flow_table_percent",
            "flows of `forward = \"nat\"` cannot do without a record",
            Some("limit them by `max_new_flows_per_second`".to_owned()),
        );
    }
    if choose_queue && deliver == Some(Delivery::Bridge) {
        table.warn("choose_queue", "with `deliver = \"bridge\"` the tap itself chooses the queue", None);
    }
    if bypass_filters && deliver == Some(Delivery::Bridge) {
        table.warn("bypass_filters", "with `deliver = \"bridge\"` the filters of a port hold anyway", None);
    }
    let targets = target::targets(table, forward, ports);
    let health = health::health(table, protocol, ports, &targets);
    table.finish();

    let path = table.path.clone();
    let (name_span, port_span) = (table.span_of("name"), table.span_of("port"));
    let service = Service {
        name: name?.value,
        switch: switch?.value,
        vlan,
        vips,
        protocol: protocol?,
        ports: ports?,
        forward: forward?,
        deliver: deliver.unwrap_or(Delivery::Auto),
        algorithm: algorithm.unwrap_or(Algorithm::Maglev),
        choose_queue,
        answer: answer.unwrap_or(Answer::Off),
        no_target: no_target.unwrap_or(NoTarget::Reject),
        bypass_filters,
        exclusive,
        max_new_flows_per_second: max_new_flows.map(|limit| limit.value as u32),
        max_flow_table_percent: max_flow_table.map(|limit| limit.value as u32),
        table_size: own_table_size.unwrap_or(limits.table_size),
        weights: weighing,
        availability,
        targets,
        health,
    };
    Some(ReadService { service, path, name_span, vip_spans, port_span })
}

fn service_name(table: &Table<'_, '_>, name: &At<String>) -> bool {
    let text = &name.value;
    let fits = !text.is_empty()
        && text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !fits {
        let hint = "letters, digits, `.`, `_` and `-`, at most 63, the first a letter or digit";
        table.error("name", format!("\"{text}\" cannot be a service's name"), Some(hint.to_owned()));
    }
    fits
}

fn known_switch(table: &Table<'_, '_>, name: &str, switches: &[At<Switch>]) {
    if switches.iter().any(|switch| switch.value.name == name) {
        return;
    }
    let names = || switches.iter().map(|switch| switch.value.name.as_str());
    let hint = match did_you_mean(name, names()) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("add a [[switch]] with `name = \"{name}\"`"),
    };
    table.error("switch", format!("there is no switch \"{name}\""), Some(hint));
}

fn vips(table: &Table<'_, '_>) -> (Vec<IpAddr>, Vec<Range<usize>>) {
    let (mut vips, mut spans) = (Vec::new(), Vec::new());
    let key = table.key("vip");
    let Some(texts) = table.strings("vip") else {
        if !table.has("vip") {
            table.missing("vip");
        }
        return (vips, spans);
    };
    if texts.is_empty() {
        table.error("vip", "the list is empty", Some("name at least one address".to_owned()));
    }
    for text in texts {
        let Ok(address) = text.value.parse::<IpAddr>() else {
            let hint =
                text.value.contains('/').then(|| "a VIP is one address, without a prefix length".to_owned());
            table.report().error(&text.span, &key, format!("\"{}\" is not an address", text.value), hint);
            continue;
        };
        if let Some(reason) = units::unusable_address(address) {
            table.report().error(&text.span, &key, format!("{address} {reason}; it cannot be a VIP"), None);
        } else if vips.contains(&address) {
            table.report().error(&text.span, &key, format!("{address} is named twice"), None);
        } else {
            vips.push(address);
            spans.push(text.span);
        }
    }
    (vips, spans)
}

fn protocol(table: &Table<'_, '_>) -> Option<Protocol> {
    if !table.has("protocol") {
        table.missing("protocol");
    }
    if table.string("protocol").is_some_and(|text| text.value == "sctp") {
        let hint = "this version balances \"tcp\" and \"udp\"";
        table.error("protocol", "\"sctp\" is not in this version", Some(hint.to_owned()));
        return None;
    }
    choice_quietly(table, "protocol", &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)])
}

/// [`choice`] for a key whose type was reported already.
fn choice_quietly<T: Clone>(table: &Table<'_, '_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    if table.is_string(key) { choice(table, key, words) } else { None }
}

fn ports(table: &Table<'_, '_>) -> Option<Ports> {
    let Some(text) = table.number_or_text("port") else {
        if !table.has("port") {
            table.missing("port");
        }
        return None;
    };
    match units::ports(&text.value) {
        Ok(ports) => Some(ports),
        Err(reason) => {
            let hint = "one port (80), a range (\"8000-8100\"), or 0 for every port";
            table.error("port", reason, Some(hint.to_owned()));
            None
        }
    }
}

fn forward(table: &Table<'_, '_>) -> Option<Forward> {
    if !table.has("forward") {
        return Some(Forward::Dsr);
    }
    if table.string("forward").is_some_and(|text| text.value == "encap") {
        let hint = "use \"dsr\" for targets on this network; targets on another one have to wait";
        table.error("forward", "\"encap\" is not in this version", Some(hint.to_owned()));
        return None;
    }
    choice_quietly(table, "forward", &[("dsr", Forward::Dsr), ("nat", Forward::Nat)])
}

fn algorithm(table: &Table<'_, '_>) -> Option<Algorithm> {
    let text = table.string("algorithm")?;
    if LATER.contains(&text.value.as_str()) {
        let message = format!("\"{}\" is not in this version", text.value);
        table.error("algorithm", message, Some("use \"maglev\" or \"p2c\"".to_owned()));
        return None;
    }
    choice(table, "algorithm", &[("maglev", Algorithm::Maglev), ("p2c", Algorithm::P2c)])
}

fn answer(table: &Table<'_, '_>) -> Option<Answer> {
    let text = table.string("answer")?;
    // Every `link:` ends here, so the placeholder in the list below is only ever read by people.
    if let Some(link) = text.value.strip_prefix("link:") {
        let link = At { value: link.to_owned(), span: text.span };
        return interface(table, "answer", &link).then_some(Answer::Link(link.value));
    }
    choice(table, "answer", &[("off", Answer::Off), ("probe", Answer::Probe), ("link:NAME", Answer::Off)])
}
