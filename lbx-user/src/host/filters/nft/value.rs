//! Values of nft's JSON: sets, ranges, prefixes, and the comparisons they are in.

use std::collections::BTreeMap;

use serde_json::Value;

use super::text;
use crate::host::filters::condition::{Condition, Field, prefix};

/// The named sets and maps of a ruleset: their elements by family, table and name.
#[derive(Debug, Default)]
pub(super) struct Sets<'a>(BTreeMap<(&'a str, &'a str, &'a str), &'a [Value]>);

impl<'a> Sets<'a> {
    pub(super) fn new(items: &'a [Value]) -> Self {
        let sets = items.iter().filter_map(|item| item.get("set").or_else(|| item.get("map")));
        let named = sets.map(|set| {
            let elements = set.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            ((text(set, "family"), text(set, "table"), text(set, "name")), elements)
        });
        Self(named.collect())
    }

    /// The elements of a set, named (`@name`) or in place; `None` if it is neither.
    pub(super) fn members(&self, family: &str, table: &str, set: &'a Value) -> Option<&'a [Value]> {
        match set {
            Value::String(name) => self.0.get(&(family, table, name.strip_prefix('@')?)).copied(),
            set => set.get("set").and_then(Value::as_array).map(Vec::as_slice),
        }
    }
}

/// The values of the right side of a comparison: those of a set, or the only one. `None`: a set that is not
/// known.
pub(super) fn elements<'a>(
    sets: &Sets<'a>,
    family: &str,
    table: &str,
    right: &'a Value,
) -> Option<Vec<&'a Value>> {
    let all = match right {
        Value::String(name) if name.starts_with('@') => sets.members(family, table, right)?,
        right if right.get("set").is_some() => sets.members(family, table, right)?,
        one => return Some(vec![one]),
    };
    // An element with a timeout or a comment is wrapped.
    Some(all.iter().map(|element| element.pointer("/elem/val").unwrap_or(element)).collect())
}

/// Interface names.
pub(super) fn names(values: &[&Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(ToOwned::to_owned)).collect()
}

/// The conditions a comparison stands for. A field of a protocol is there only in packets of that protocol.
pub(super) fn condition(left: &Value, op: &str, members: Option<&[&Value]>) -> Vec<Condition> {
    if let Some(parts) = left.get("concat").and_then(Value::as_array) {
        return concatenation(parts, op, members);
    }
    let Some((field, needs)) = field(left) else {
        return needed(left).into_iter().chain([Condition::unknown()]).collect();
    };
    let ranges = |values: &[&Value]| values.iter().filter_map(|value| range(field, value)).collect();
    let mut own = Condition::is(field, members.map(ranges).unwrap_or_default());
    match op {
        "==" | "in" => {}
        "!=" => own.negated = true,
        "<" | "<=" | ">" | ">=" => match own.values.first().copied() {
            Some((value, _)) => {
                own.values = match op {
                    "<" => value.checked_sub(1).map(|below| (0, below)).into_iter().collect(),
                    "<=" => vec![(0, value)],
                    ">" => value.checked_add(1).map(|above| (above, u128::MAX)).into_iter().collect(),
                    _ => vec![(value, u128::MAX)],
                };
            }
            None => own = Condition::unknown(),
        },
        _ => own = Condition::unknown(),
    }
    needs.into_iter().chain([own]).collect()
}

/// `ip saddr . ether saddr`: of its parts only the source address is looked at.
fn concatenation(parts: &[Value], op: &str, members: Option<&[&Value]>) -> Vec<Condition> {
    let mut all: Vec<Condition> = parts.iter().filter_map(needed).collect();
    let known = parts.iter().enumerate().find_map(|(n, part)| {
        let (field, _) = field(part).filter(|(field, _)| matches!(field, Field::Source4 | Field::Source6))?;
        Some((n, field))
    });
    let Some((n, field)) = known else {
        all.push(Condition::unknown());
        return all;
    };
    let part = |value: &&Value| range(field, value.get("concat")?.get(n)?);
    let values = members.map(|members| members.iter().filter_map(part).collect()).unwrap_or_default();
    all.push(Condition { field, negated: op == "!=", values, partial: true });
    all
}

/// What the left side looks at, and what has to hold for it to be there.
fn field(left: &Value) -> Option<(Field, Option<Condition>)> {
    match left.pointer("/meta/key").and_then(Value::as_str) {
        Some("protocol" | "nfproto") => return Some((Field::EtherType, None)),
        Some("l4proto") => return Some((Field::Protocol, None)),
        _ => {}
    }
    let payload = left.get("payload")?;
    let field = match (text(payload, "protocol"), text(payload, "field")) {
        ("ip", "saddr") => Field::Source4,
        ("ip6", "saddr") => Field::Source6,
        ("ether", "type") => Field::EtherType,
        ("ip", "protocol") | ("ip6", "nexthdr") => Field::Protocol,
        (_, "sport") => Field::SourcePort,
        _ => return None,
    };
    Some((field, needed(left)))
}

/// The protocol a field belongs to, as a condition.
fn needed(left: &Value) -> Option<Condition> {
    let protocol = text(left.get("payload")?, "protocol");
    let (field, number) = match protocol {
        "ip" => (Field::EtherType, 0x0800),
        "ip6" => (Field::EtherType, 0x86dd),
        "arp" => (Field::EtherType, 0x0806),
        "vlan" => (Field::EtherType, 0x8100),
        other => (Field::Protocol, protocol_number(other)?),
    };
    Some(Condition::is(field, vec![(number, number)]))
}

fn protocol_number(name: &str) -> Option<u128> {
    Some(match name {
        "icmp" => 1,
        "igmp" => 2,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        "udplite" => 136,
        _ => return None,
    })
}

/// A value or range of values of a field, as numbers; `None` if it is not understood.
fn range(field: Field, value: &Value) -> Option<(u128, u128)> {
    if let Some([first, last]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some((range(field, first)?.0, range(field, last)?.1));
    }
    if let Some(own) = value.get("prefix") {
        let length = own.get("len").and_then(Value::as_u64)?;
        return prefix(&format!("{}/{length}", text(own, "addr"))).map(|(_, range)| range);
    }
    let number = match (field, value) {
        (_, Value::Number(number)) => u128::from(number.as_u64()?),
        (Field::Source4 | Field::Source6, Value::String(address)) => {
            return prefix(address).map(|(_, own)| own);
        }
        (Field::EtherType, Value::String(name)) => match name.as_str() {
            "ip" | "ipv4" => 0x0800,
            "ip6" | "ipv6" => 0x86dd,
            "arp" => 0x0806,
            "vlan" | "8021q" => 0x8100,
            "8021ad" => 0x88a8,
            _ => return None,
        },
        (Field::Protocol, Value::String(name)) => protocol_number(name)?,
        _ => return None,
    };
    Some((number, number))
}

/// A comparison in nft's notation, shortened.
pub(super) fn comparison(value: &Value) -> String {
    let left = shown(&value["left"]);
    let op = match text(value, "op") {
        "==" | "in" => String::new(),
        op => format!("{op} "),
    };
    format!("{left} {op}{}", brief(&value["right"]))
}

fn shown(left: &Value) -> String {
    if let Some(key) = left.pointer("/meta/key").and_then(Value::as_str) {
        key.to_owned()
    } else if let Some(payload) = left.get("payload") {
        format!("{} {}", text(payload, "protocol"), text(payload, "field"))
    } else if let Some(key) = left.pointer("/ct/key").and_then(Value::as_str) {
        format!("ct {key}")
    } else if let Some(parts) = left.get("concat").and_then(Value::as_array) {
        parts.iter().map(shown).collect::<Vec<_>>().join(" . ")
    } else {
        brief(left)
    }
}

/// A value short enough for a message.
pub(super) fn brief(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}
