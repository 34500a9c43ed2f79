//! `iptables-save` and `ebtables -L` into chains and rules.

use super::condition::{Condition, Field, prefix};
use super::rules::{Chain, Hook, Match, Rule, Verdict};

/// The words of a tool.
struct Words {
    input: &'static [&'static str],
    output: &'static [&'static str],
    bridge_in: &'static [&'static str],
    bridge_out: &'static [&'static str],
    source: &'static [&'static str],
    source_port: &'static [&'static str],
    protocol: &'static [&'static str],
    /// Names of EtherTypes.
    family: &'static [&'static str],
}

/// Bridged packets come to iptables by their bridge; the port is physdev's.
const IPTABLES: Words = Words {
    input: &["--physdev-in"],
    output: &["--physdev-out"],
    bridge_in: &["-i", "--in-interface"],
    bridge_out: &["-o", "--out-interface"],
    source: &["-s", "--source", "--src"],
    source_port: &["--sport", "--source-port"],
    protocol: &["-p", "--protocol"],
    family: &[],
};

/// ebtables' `-s` is a MAC.
const EBTABLES: Words = Words {
    input: &["-i", "--in-if", "--in-interface"],
    output: &["-o", "--out-if", "--out-interface"],
    bridge_in: &["--logical-in"],
    bridge_out: &["--logical-out"],
    source: &["--ip-src", "--ip-source", "--ip6-src", "--ip6-source"],
    source_port: &["--ip-sport", "--ip-source-port", "--ip6-sport", "--ip6-source-port"],
    protocol: &["--ip-proto", "--ip-protocol", "--ip6-proto", "--ip6-protocol"],
    family: &["-p", "--protocol", "--proto"],
};

/// The chains of `iptables-save` (or ip6tables), one list per table, with the table's name.
pub fn iptables_chains(save: &str) -> Vec<(String, Vec<Chain>)> {
    let mut tables: Vec<(String, Vec<Chain>)> = Vec::new();
    for line in save.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push((name.to_owned(), Vec::new()));
        }
        let Some((_, chains)) = tables.last_mut() else { continue };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            chains.push(Chain {
                name: name.to_owned(),
                hook: hook(name),
                policy_drop: policy == "DROP",
                ..Chain::default()
            });
        } else if let Some(added) = line.strip_prefix("-A ") {
            let (name, text) = added.split_once(' ').unwrap_or((added, ""));
            if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
                chain.rules.push(rule(text, &IPTABLES));
            }
        }
    }
    tables
}

/// The chains of `ebtables -t TABLE -L`.
pub fn ebtables_chains(list: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for line in list.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix("Bridge chain: ") {
            let name = header.split(',').next().unwrap_or_default();
            chains.push(Chain {
                name: name.to_owned(),
                hook: hook(name),
                // A user's chain also has a policy, but returns by default; DROP drops in either.
                policy_drop: header.contains("policy: DROP"),
                ..Chain::default()
            });
        } else if line.contains("-j ")
            && let Some(chain) = chains.last_mut()
        {
            chain.rules.push(rule(line, &EBTABLES));
        }
    }
    chains
}

fn hook(chain: &str) -> Option<Hook> {
    Some(match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    })
}

fn rule(text: &str, tool: &Words) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rule = Rule { text: text.to_owned(), ..Rule::default() };
    for (n, word) in words.iter().enumerate() {
        // The exclamation mark stands before the option (iptables) or after it (ebtables).
        let after = words.get(n + 1) == Some(&"!");
        let negated = after || (n > 0 && words[n - 1] == "!");
        let value = words.get(n + 1 + usize::from(after)).copied().unwrap_or_default();
        let named = || {
            let names = vec![value.to_owned()];
            if negated { Match::Not(names) } else { Match::Only(names) }
        };
        let mut asks = |field, values| {
            rule.conditions.push(Condition { negated, ..Condition::is(field, values) });
        };
        if tool.input.contains(word) {
            rule.input = named();
        } else if tool.output.contains(word) {
            rule.output = named();
        } else if tool.bridge_in.contains(word) {
            rule.bridge_in = named();
        } else if tool.bridge_out.contains(word) {
            rule.bridge_out = named();
        } else if matches!(*word, "-j" | "-g" | "--jump" | "--goto") {
            rule.verdict = verdict(value, matches!(*word, "-g" | "--goto"));
        } else if tool.source.contains(word) {
            match prefix(value) {
                Some((field, range)) => asks(field, vec![range]),
                // A mask with holes: by the option, since the value does not tell the family.
                None if word.contains('6') || value.contains(':') => asks(Field::Source6, Vec::new()),
                None => asks(Field::Source4, Vec::new()),
            }
        } else if tool.source_port.contains(word) {
            let (first, last) = value.split_once(':').unwrap_or((value, value));
            match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) => asks(Field::SourcePort, vec![(first.into(), last.into())]),
                _ => asks(Field::Other, Vec::new()),
            }
        } else if tool.protocol.contains(word) {
            match value {
                "tcp" | "6" => asks(Field::Protocol, vec![(6, 6)]),
                "udp" | "17" => asks(Field::Protocol, vec![(17, 17)]),
                // Some other one, which no service has.
                _ => asks(Field::Protocol, Vec::new()),
            }
        } else if tool.family.contains(word) {
            match value {
                "IPv4" | "0x0800" => asks(Field::EtherType, vec![(0x0800, 0x0800)]),
                "IPv6" | "0x86DD" | "0x86dd" => asks(Field::EtherType, vec![(0x86dd, 0x86dd)]),
                _ => asks(Field::EtherType, Vec::new()),
            }
        } else if word.starts_with('-') && !matches!(*word, "-m" | "--comment" | "--physdev-is-bridged") {
            // Any other option: `--ctstate`, `-d`, an option of the target. It may hold or not.
            asks(Field::Other, Vec::new());
        }
    }
    rule
}

fn verdict(target: &str, goto: bool) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accepts,
        "RETURN" => Verdict::Returns,
        "CONTINUE" | "LOG" | "NFLOG" | "ULOG" | "CHECKSUM" => Verdict::Continues,
        "DROP" | "REJECT" | "TARPIT" => Verdict::Drops,
        // Targets of xtables are written in capitals; user's chains usually are not, and are looked up by name, so
        // a chain in capitals that exists is found by the walk.
        "DNAT" | "SNAT" | "MASQUERADE" | "QUEUE" | "NFQUEUE" | "TPROXY" | "REDIRECT" | "dnat" | "snat"
        | "redirect" | "arpreply" | "MARK" | "mark" => Verdict::Acts,
        chain if goto => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filters::{At, Source, Table, walk};

    fn at(port: &str) -> At<'_> {
        At { port, bridge: "br0", uplinks: &[] }
    }

    #[test]
    fn conntrack_invalid_drop_concerns_every_port() {
        let save = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
                    -A INPUT -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
                    -A FORWARD -i eth1 -j DROP\n\
                    -A FORWARD -m physdev --physdev-out tap1 -j DROP\nCOMMIT\n";
        let tables = iptables_chains(save);
        assert_eq!(tables[0].0, "filter");
        let table = Table {
            name: "iptables filter".to_owned(),
            source: Source::Iptables,
            chains: tables[0].1.clone(),
        };
        let found = walk(&table, &at("tap0"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rule, "iptables filter FORWARD: -m conntrack --ctstate INVALID -j DROP");
        assert_eq!(walk(&table, &at("tap1")).len(), 2);
    }

    #[test]
    fn libvirts_ebtables_chains_are_followed() {
        let list = "Bridge table: nat\n\n\
            Bridge chain: PREROUTING, entries: 1, policy: ACCEPT\n-i vnet0 -j libvirt-I-vnet0\n\n\
            Bridge chain: libvirt-I-vnet0, entries: 2, policy: ACCEPT\n\
            -p IPv4 --ip-src ! 192.0.2.21 -j DROP\n-p IPv4 -j ACCEPT\n";
        let table = Table {
            name: "ebtables nat".to_owned(),
            source: Source::Ebtables,
            chains: ebtables_chains(list),
        };
        let found = walk(&table, &at("vnet0"));
        assert_eq!((found.len(), found[0].source), (1, Source::Nwfilter));
        assert_eq!(walk(&table, &at("vnet1")), []);
    }

    #[test]
    fn conditions_are_read_with_their_exclamation_marks() {
        let rule =
            rule("-s 192.0.2.0/24 ! -p udp -m udp --sport 53:60 -m state --state NEW -j DROP", &IPTABLES);
        let [source, protocol, port, other] = &rule.conditions[..] else { panic!("{rule:?}") };
        assert_eq!((source.field, source.negated), (Field::Source4, false));
        assert_eq!((protocol.field, protocol.negated), (Field::Protocol, true));
        assert_eq!((port.field, port.values.as_slice()), (Field::SourcePort, [(53, 60)].as_slice()));
        assert_eq!((other.field, rule.verdict), (Field::Other, Verdict::Drops));
        let masked = self::rule("-s 192.0.2.1/255.0.255.0 -j DROP", &IPTABLES);
        assert_eq!(masked.conditions, [Condition::is(Field::Source4, Vec::new())]);
    }
}
