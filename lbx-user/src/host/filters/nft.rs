//! `nft -j list ruleset` into chains and rules (libnftables-json(5)).

use serde_json::Value;

use super::Source;
use super::walk::{Chain, Match, Rule, Table, Verdict};

/// The tables of a ruleset that can stand between a bridge port and its peer. `calls_iptables`: bridged packets
/// also pass the IP families.
pub fn tables(ruleset: &Value, calls_iptables: bool) -> Vec<Table> {
    let mut tables: Vec<(String, String, Table)> = Vec::new();
    let items = ruleset.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for item in items {
        let Some((kind, body)) = item.as_object().and_then(|object| object.iter().next()) else { continue };
        let (family, name) =
            (text(body, "family"), text(body, if kind == "table" { "name" } else { "table" }));
        let source = match family {
            "bridge" | "netdev" => Source::NftBridge,
            "ip" | "ip6" | "inet" if calls_iptables => Source::Iptables,
            _ => continue,
        };
        let at = tables.iter().position(|(f, n, _)| f == family && n == name).unwrap_or_else(|| {
            let table = Table { name: format!("{family} {name}"), source, chains: Vec::new() };
            tables.push((family.to_owned(), name.to_owned(), table));
            tables.len() - 1
        });
        let chains = &mut tables[at].2.chains;
        match kind.as_str() {
            "chain" => chains.push(chain(body)),
            "rule" => {
                let rule = rule(body);
                if let Some(chain) = chains.iter_mut().find(|chain| chain.name == text(body, "chain")) {
                    chain.rules.push(rule);
                }
            }
            _ => {}
        }
    }
    tables.into_iter().map(|(_, _, table)| table).collect()
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn chain(body: &Value) -> Chain {
    let hook = text(body, "hook");
    Chain {
        name: text(body, "name").to_owned(),
        // `input` and `output` are for packets of the host itself, which do not go from port to port.
        hooked: matches!(hook, "prerouting" | "forward" | "postrouting" | "ingress" | "egress"),
        device: body.get("dev").and_then(Value::as_str).map(ToOwned::to_owned),
        ingress: matches!(hook, "prerouting" | "ingress"),
        policy_drop: text(body, "policy") == "drop",
        rules: Vec::new(),
    }
}

fn rule(body: &Value) -> Rule {
    let mut rule = Rule { unconditional: true, ..Rule::default() };
    let mut words = Vec::new();
    for expression in body.get("expr").and_then(Value::as_array).into_iter().flatten() {
        let Some((kind, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        match kind.as_str() {
            "match" => {
                rule.unconditional = false;
                interface(value, &mut rule);
                rule.source_address |= source_address(&value["left"]);
                words.push(comparison(value));
            }
            "jump" | "goto" => {
                rule.verdict = Verdict::Jump(text(value, "target").to_owned());
                words.push(format!("{kind} {}", text(value, "target")));
            }
            "accept" | "return" | "continue" | "counter" | "log" | "comment" => words.push(kind.clone()),
            // iptables-nft matches that nft has no words for; ebtables' verdicts come the same way.
            "xt" => {
                words.push(format!("{} {}", text(value, "type"), text(value, "name")));
                rule.unconditional &= text(value, "type") == "target";
                if text(value, "type") == "target" {
                    rule.verdict = Verdict::Acts;
                }
            }
            // Where a map sends a packet is not followed: it is taken to act.
            "vmap" => {
                rule.unconditional = false;
                rule.verdict = Verdict::Acts;
                let key = value.pointer("/key/meta/key").and_then(Value::as_str);
                words.push(format!("{} vmap", key.unwrap_or("verdict")));
            }
            // drop, reject, queue, dnat, mangle, limit with drop, … : not harmless, or not known to be.
            other => {
                if other != "limit" && rule.verdict == Verdict::Harmless {
                    rule.verdict = Verdict::Acts;
                }
                rule.unconditional &= matches!(other, "drop" | "reject");
                words.push(if value.is_null() {
                    other.to_owned()
                } else {
                    format!("{other} {}", brief(value))
                });
            }
        }
    }
    let handle = body.get("handle").and_then(Value::as_u64);
    words.extend(handle.map(|handle| format!("(handle {handle})")));
    rule.text = words.join(" ");
    rule
}

fn interface(value: &Value, rule: &mut Rule) {
    let key = value.pointer("/left/meta/key").and_then(Value::as_str).unwrap_or_default();
    let slot = match key {
        "iifname" | "iif" => &mut rule.input,
        "oifname" | "oif" => &mut rule.output,
        _ => return,
    };
    let names = match &value["right"] {
        Value::String(name) => vec![name.clone()],
        right => right["set"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(ToOwned::to_owned))
            .collect(),
    };
    // A named set or a range is not resolved: such a rule is taken to concern every port.
    if names.is_empty() || names.iter().any(|name| name.starts_with('@')) {
        return;
    }
    match text(value, "op") {
        "==" | "in" => *slot = Match::Only(names),
        "!=" => *slot = Match::Not(names),
        _ => {}
    }
}

fn source_address(left: &Value) -> bool {
    let field = left.pointer("/payload/field").and_then(Value::as_str).unwrap_or_default();
    let protocol = left.pointer("/payload/protocol").and_then(Value::as_str).unwrap_or_default();
    (field == "saddr" && matches!(protocol, "ip" | "ip6"))
        || left["concat"].as_array().is_some_and(|all| all.iter().any(source_address))
}

fn comparison(value: &Value) -> String {
    let left = &value["left"];
    let left = if let Some(key) = left.pointer("/meta/key").and_then(Value::as_str) {
        key.to_owned()
    } else if let Some(payload) = left.get("payload") {
        format!("{} {}", text(payload, "protocol"), text(payload, "field"))
    } else if let Some(key) = left.pointer("/ct/key").and_then(Value::as_str) {
        format!("ct {key}")
    } else {
        brief(left)
    };
    let op = match text(value, "op") {
        "==" | "in" => String::new(),
        op => format!("{op} "),
    };
    format!("{left} {op}{}", brief(&value["right"]))
}

/// A value short enough for a message.
fn brief(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filters::walk;

    /// As nft 1.0.6 prints it, less what is not read.
    const RULESET: &str = r#"{"nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "bridge", "name": "guard", "handle": 1}},
        {"chain": {"family": "bridge", "table": "guard", "name": "fwd", "handle": 1, "type": "filter",
                   "hook": "forward", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "bridge", "table": "guard", "chain": "fwd", "handle": 2, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "tap0"}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": "203.0.113.9"}},
            {"drop": null}]}},
        {"rule": {"family": "bridge", "table": "guard", "chain": "fwd", "handle": 3, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": ["tap1", "tap2"]}}},
            {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": "192.0.2.21"}},
            {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}},
        {"table": {"family": "inet", "name": "host", "handle": 2}},
        {"chain": {"family": "inet", "table": "host", "name": "fwd", "handle": 1, "type": "filter",
                   "hook": "forward", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "host", "chain": "fwd", "handle": 2, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}]}}
    ]}"#;

    fn found(port: &str, calls_iptables: bool) -> Vec<(String, bool)> {
        let ruleset = serde_json::from_str(RULESET).unwrap();
        tables(&ruleset, calls_iptables)
            .iter()
            .flat_map(|table| walk(table, port, &["eth0".to_owned()]))
            .map(|found| (found.rule, found.filters_source))
            .collect()
    }

    #[test]
    fn rules_are_named_as_nft_names_them() {
        assert_eq!(
            found("tap0", false),
            [("bridge guard fwd: oifname tap0 ip saddr 203.0.113.9 drop (handle 2)".to_owned(), false)]
        );
        let tap1 = found("tap1", false);
        assert_eq!(tap1.len(), 1);
        assert!(tap1[0].1, "a source filter: {tap1:?}");
        assert_eq!(found("tap9", false), []);
    }

    #[test]
    fn the_ip_families_count_when_the_bridge_calls_them() {
        assert_eq!(
            found("tap9", true),
            [("inet host fwd: ct state invalid drop (handle 2)".to_owned(), false)]
        );
    }
}
