//! tc filters and queueing on a port.

use super::{Finding, Source};

/// A filter or queueing discipline as tc lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcObject {
    /// A filter.
    Filter {
        /// On the way in from the port, not out of it.
        ingress: bool,
        /// `bpf`, `flower`, `u32`, `matchall`; `tcx` for a program without a filter around it.
        kind: String,
        /// The name of a BPF filter's program.
        program: Option<String>,
    },
    /// A queueing discipline.
    Qdisc {
        /// `noqueue`, `fq_codel`, `tbf`.
        kind: String,
    },
}

/// Queueing disciplines that only queue. Everything else shapes, delays, drops or is not known.
const PLAIN: [&str; 9] =
    ["noqueue", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "mq", "clsact", "ingress"];

/// What on a port a frame delivered by redirect would not meet. lbx's own programs (`lbx_*`) do not count.
pub fn tc_findings(port: &str, objects: &[TcObject]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for object in objects {
        let (source, rule) = match object {
            TcObject::Filter { program: Some(name), .. } if name.starts_with("lbx_") => continue,
            TcObject::Filter { ingress, kind, program } => {
                let way = if *ingress { "ingress" } else { "egress" };
                let program = program.as_ref().map_or_else(String::new, |name| format!(" {name}"));
                (Source::Tc, format!("{way} {kind}{program}"))
            }
            TcObject::Qdisc { kind } if PLAIN.contains(&kind.as_str()) => continue,
            TcObject::Qdisc { kind } => (Source::Shaping, format!("qdisc {kind}")),
        };
        let finding = Finding { port: port.to_owned(), source, rule, drops: Vec::new() };
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_programs_and_plain_queues_are_not_findings() {
        let filter = |kind: &str, program: Option<&str>| TcObject::Filter {
            ingress: true,
            kind: kind.to_owned(),
            program: program.map(ToOwned::to_owned),
        };
        let qdisc = |kind: &str| TcObject::Qdisc { kind: kind.to_owned() };
        let objects = [
            filter("bpf", Some("lbx_tc_ingress")),
            filter("bpf", Some("cilium")),
            filter("flower", None),
            filter("tcx", Some("lbx_tc")),
            filter("tcx", Some("cil_from_netdev (id 7)")),
            qdisc("fq_codel"),
            qdisc("clsact"),
            qdisc("tbf"),
        ];
        let rules: Vec<_> = tc_findings("tap0", &objects).iter().map(ToString::to_string).collect();
        assert_eq!(
            rules,
            [
                "tc filter on tap0: ingress bpf cilium",
                "tc filter on tap0: ingress flower",
                "tc filter on tap0: ingress tcx cil_from_netdev (id 7)",
                "shaping on tap0: qdisc tbf"
            ]
        );
    }
}
