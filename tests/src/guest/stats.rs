//! Protocol counters of the current network namespace, as the kernel prints them.

use std::collections::BTreeMap;
use std::fs;

/// Reads /proc/net/snmp, netstat and snmp6: `Tcp.InCsumErrors`, `TcpExt.ListenOverflows`, `Udp6InCsumErrors`, ...
///
/// All `*CsumErrors` counters are present even when zero; other counters only when they are not.
pub fn counters() -> BTreeMap<String, u64> {
    // Through the calling thread, because a thread may live in another namespace than its process.
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let mut all = pairs_of_lines(&read("snmp"));
    all.extend(pairs_of_lines(&read("netstat")));
    all.extend(one_per_line(&read("snmp6")));
    all.retain(|name, value| *value != 0 || name.ends_with("CsumErrors"));
    all
}

/// The sum of all checksum error counters.
pub fn checksum_errors(counters: &BTreeMap<String, u64>) -> u64 {
    counters.iter().filter(|(name, _)| name.ends_with("CsumErrors")).map(|(_, value)| value).sum()
}

/// The format of /proc/net/snmp: a line of names, then a line of values, both with the same prefix.
fn pairs_of_lines(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<_> = text.lines().collect();
    let mut out = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Tcp.MaxConn is -1; no counter is.
            if let Ok(value) = value.parse() {
                out.insert(format!("{group}.{name}"), value);
            }
        }
    }
    out
}

/// The format of /proc/net/snmp6: a name and a value on each line.
fn one_per_line(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let snmp = "Tcp: RtoMin MaxConn InCsumErrors\nTcp: 200 -1 3\nUdp: InDatagrams\nUdp: 9\n";
        let got = pairs_of_lines(snmp);
        assert_eq!(got["Tcp.InCsumErrors"], 3);
        assert_eq!(got["Udp.InDatagrams"], 9);
        assert!(!got.contains_key("Tcp.MaxConn"));
        let got = one_per_line("Ip6InReceives  \t12\nUdp6InCsumErrors 1\n");
        assert_eq!((got["Ip6InReceives"], checksum_errors(&got)), (12, 1));
    }

    #[test]
    fn this_machine_has_checksum_counters() {
        assert!(counters().contains_key("Tcp.InCsumErrors"));
    }
}
