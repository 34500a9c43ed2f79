//! `nft -j list ruleset` into chains and rules (libnftables-json(5)).

mod value;

use serde_json::Value;

use super::Source;
use super::condition::{Condition, Field};
use super::rules::{Chain, Hook, Match, Rule, Table, Verdict};
use value::{Sets, brief, comparison, condition, elements, names};

/// The tables of a ruleset that can stand between a bridge port and its peer. `calls_iptables`: bridged packets
/// also pass the IP families.
pub fn tables(ruleset: &Value, calls_iptables: bool) -> Vec<Table> {
    let mut tables: Vec<(String, String, Table)> = Vec::new();
    let items = ruleset.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let sets = Sets::new(items);
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
                let rules = Reader { family, table: name, sets: &sets }.rules(body);
                if let Some(chain) = chains.iter_mut().find(|chain| chain.name == text(body, "chain")) {
                    chain.rules.extend(rules);
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
    let hook = match text(body, "hook") {
        "prerouting" => Some(Hook::Prerouting),
        "input" => Some(Hook::Input),
        "forward" => Some(Hook::Forward),
        "postrouting" => Some(Hook::Postrouting),
        "ingress" => Some(Hook::Ingress),
        "egress" => Some(Hook::Egress),
        // `output` is for packets of the host itself.
        _ => None,
    };
    let devices = match body.get("dev") {
        Some(Value::String(device)) => vec![device.clone()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(|device| device.as_str().map(ToOwned::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    let policy_drop = text(body, "policy") == "drop";
    Chain { name: text(body, "name").to_owned(), hook, devices, policy_drop, rules: Vec::new() }
}

/// Where a rule stands: what its names mean.
struct Reader<'a> {
    family: &'a str,
    table: &'a str,
    sets: &'a Sets<'a>,
}

impl Reader<'_> {
    /// A rule; one for each way of a verdict map.
    fn rules(&self, body: &Value) -> Vec<Rule> {
        let mut rule = Rule::default();
        // The IP families see only their own packets.
        match self.family {
            "ip" => rule.conditions.push(Condition::is(Field::EtherType, vec![(0x0800, 0x0800)])),
            "ip6" => rule.conditions.push(Condition::is(Field::EtherType, vec![(0x86dd, 0x86dd)])),
            _ => {}
        }
        let mut words = Vec::new();
        let mut map = None;
        for expression in body.get("expr").and_then(Value::as_array).into_iter().flatten() {
            let Some((kind, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
                continue;
            };
            match kind.as_str() {
                "match" => {
                    self.asks(&value["left"], text(value, "op"), &value["right"], &mut rule);
                    words.push(comparison(value));
                }
                "vmap" => {
                    let key = value.pointer("/key/meta/key").and_then(Value::as_str);
                    words.push(format!("{} vmap", key.unwrap_or("verdict")));
                    map = Some(value);
                }
                "counter" | "log" | "comment" => words.push(kind.clone()),
                // How often a packet passes here is not known.
                "limit" | "quota" | "ct count" => {
                    rule.conditions.push(Condition::unknown());
                    words.push(format!("{kind} {}", brief(value)));
                }
                // iptables-nft matches that nft has no words for; ebtables' verdicts come the same way.
                "xt" => {
                    let (what, name) = (text(value, "type"), text(value, "name"));
                    words.push(format!("{what} {name}"));
                    match (what, name) {
                        ("target", "REJECT" | "DROP") => rule.verdict = Verdict::Drops,
                        ("target", _) => rule.verdict = Verdict::Acts,
                        _ => rule.conditions.push(Condition::unknown()),
                    }
                }
                _ => match verdict(kind, value) {
                    Some(verdict) => {
                        words.push(match &verdict {
                            Verdict::Jump(to) | Verdict::Goto(to) => format!("{kind} {to}"),
                            _ if value.is_null() => kind.clone(),
                            _ => format!("{kind} {}", brief(value)),
                        });
                        rule.verdict = verdict;
                    }
                    // queue, dnat, mangle, fwd, … : not harmless, or not known to be.
                    None => {
                        if rule.verdict == Verdict::Continues {
                            rule.verdict = Verdict::Acts;
                        }
                        words.push(format!("{kind} {}", brief(value)));
                    }
                },
            }
        }
        let handle = body.get("handle").and_then(Value::as_u64);
        words.extend(handle.map(|handle| format!("(handle {handle})")));
        rule.text = words.join(" ");
        match map {
            Some(map) => self.ways(&rule, map),
            None => vec![rule],
        }
    }

    /// A rule with a verdict map is as many rules as the map has elements, no two of which meet one packet.
    fn ways(&self, rule: &Rule, map: &Value) -> Vec<Rule> {
        let Some(all) = self.sets.members(self.family, self.table, &map["data"]) else {
            // Where an unknown map sends a packet cannot be followed: it is taken to act.
            return vec![Rule { verdict: Verdict::Acts, ..rule.clone() }];
        };
        let ways = all.iter().filter_map(|element| {
            let [key, to] = element.as_array()?.as_slice() else { return None };
            let (kind, value) = to.as_object()?.iter().next()?;
            let mut way = Rule { verdict: verdict(kind, value).unwrap_or(Verdict::Acts), ..rule.clone() };
            if key.as_str() != Some("*") {
                let key = key.pointer("/elem/val").unwrap_or(key);
                self.asks(&map["key"], "==", key, &mut way);
            }
            Some(way)
        });
        ways.collect()
    }

    /// Adds what a comparison asks.
    fn asks(&self, left: &Value, op: &str, right: &Value, rule: &mut Rule) {
        let key = left.pointer("/meta/key").and_then(Value::as_str).unwrap_or_default();
        let members = elements(self.sets, self.family, self.table, right);
        // Bridged packets come to the IP families by their bridge, not by its port.
        let bridged = matches!(self.family, "ip" | "ip6" | "inet");
        let slot = match (key, bridged) {
            ("iifname" | "iif", false) => &mut rule.input,
            ("oifname" | "oif", false) => &mut rule.output,
            ("iifname" | "iif", true) | ("ibrname", _) => &mut rule.bridge_in,
            ("oifname" | "oif", true) | ("obrname", _) => &mut rule.bridge_out,
            _ => return rule.conditions.extend(condition(left, op, members.as_deref())),
        };
        match (op, members.as_deref().and_then(names)) {
            ("==" | "in", Some(names)) => *slot = Match::Only(names),
            ("!=", Some(names)) => *slot = Match::Not(names),
            // A set that is not known is taken to concern every port.
            _ => rule.conditions.push(Condition::unknown()),
        }
    }
}

/// A verdict statement.
fn verdict(kind: &str, value: &Value) -> Option<Verdict> {
    let target = || text(value, "target").to_owned();
    Some(match kind {
        "accept" => Verdict::Accepts,
        "return" => Verdict::Returns,
        "continue" => Verdict::Continues,
        "drop" | "reject" => Verdict::Drops,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filters::{At, walk};

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

    fn found(port: &str, calls_iptables: bool) -> Vec<String> {
        let ruleset = serde_json::from_str(RULESET).unwrap();
        let uplinks = ["eth0".to_owned()];
        let at = At { port, bridge: "br0", uplinks: &uplinks };
        tables(&ruleset, calls_iptables)
            .iter()
            .flat_map(|table| walk(table, &at))
            .map(|one| one.rule)
            .collect()
    }

    #[test]
    fn rules_are_named_as_nft_names_them() {
        assert_eq!(
            found("tap0", false),
            ["bridge guard fwd: oifname tap0 ip saddr 203.0.113.9 drop (handle 2)"]
        );
        assert_eq!(found("tap1", false).len(), 1);
        assert_eq!(found("tap9", false), [""; 0]);
    }

    #[test]
    fn the_ip_families_count_when_the_bridge_calls_them() {
        assert_eq!(found("tap9", true), ["inet host fwd: ct state invalid drop (handle 2)"]);
    }

    #[test]
    fn a_verdict_map_is_as_many_rules_as_it_has_elements() {
        let ruleset = serde_json::json!({"nftables": [
            {"map": {"family": "bridge", "table": "t", "name": "m", "type": "ifname", "map": "verdict",
                     "elem": [["tap0", {"jump": {"target": "c"}}], ["tap1", {"drop": null}]]}},
            {"chain": {"family": "bridge", "table": "t", "name": "f", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "bridge", "table": "t", "chain": "f", "expr": [
                {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@m"}}]}},
            {"rule": {"family": "bridge", "table": "t", "chain": "f", "expr": [
                {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@unknown"}}]}}
        ]});
        let tables = tables(&ruleset, false);
        let rules: Vec<_> =
            tables[0].chains[0].rules.iter().map(|rule| (rule.input.clone(), rule.verdict.clone())).collect();
        let only = |name: &str| Match::Only(vec![name.to_owned()]);
        assert_eq!(
            rules,
            [
                (only("tap0"), Verdict::Jump("c".to_owned())),
                (only("tap1"), Verdict::Drops),
                (Match::Any, Verdict::Acts)
            ]
        );
    }
}
