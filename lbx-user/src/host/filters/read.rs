//! Ask the tools and the kernel of this network namespace, and collect what they say.

use std::io;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;

use super::{
    At, Finding, Sender, Source, Table, TcObject, nft_tables, source_drops, tc_findings, text, vlan_findings,
    walk,
};
use crate::datapath::{self, Direction};
use crate::host::links::{Kind, View};

/// A port to look at, and the senders whose frames should be let in by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The port's name.
    pub port: String,
    /// What `dsr` targets behind it answer with; ascending, without doubles.
    pub senders: Vec<Sender>,
}

/// What holds on each of `ports`. Runs `nft` and the legacy tools where they and their rules exist: seconds at
/// worst, never on the path of a packet. Needs CAP_NET_ADMIN.
///
/// # Errors
/// A tool that is there and fails, or a netlink request that does: then filters are unknown, not absent.
pub async fn findings(view: &View, ports: &[Asked], uplinks: &[String]) -> io::Result<Vec<Finding>> {
    let tables = tables(view)?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let mut findings = Vec::new();
    for Asked { port, senders } in ports {
        let link = view.link(port);
        let bridge = link.and_then(|link| link.master).and_then(|master| view.by_index(master));
        let at = At { port, bridge: bridge.map_or("", |bridge| &bridge.name), uplinks };
        for table in &tables {
            findings.extend(rules(table, &at, senders));
        }
        if let Some(link) = link {
            let mut objects = tc_objects(&handle, link.index as i32).await?;
            objects.extend(tcx_objects(link.index)?);
            findings.extend(tc_findings(port, &objects));
        }
        findings.extend(vlan_findings(view, port));
    }
    task.abort();
    Ok(findings)
}

/// The rules a frame to or from the port could meet, each with the senders it drops.
fn rules(table: &Table, at: &At<'_>, senders: &[Sender]) -> Vec<Finding> {
    let mut findings = walk(table, at);
    for sender in senders {
        for drop in source_drops(table, at, sender) {
            match findings.iter_mut().find(|finding| finding.rule == drop.rule) {
                Some(finding) if finding.drops.contains(sender) => {}
                Some(finding) => finding.drops.push(*sender),
                None => findings.push(drop),
            }
        }
    }
    findings
}

fn tables(view: &View) -> io::Result<Vec<Table>> {
    let calls_iptables = calls_iptables(view);
    let mut tables = Vec::new();
    if let Some(output) = run("nft", &["-j", "list", "ruleset"])? {
        let ruleset = serde_json::from_str(&output).map_err(io::Error::other)?;
        tables.extend(nft_tables(&ruleset, calls_iptables));
    }
    if calls_iptables {
        for (names, tool) in [
            ("/proc/thread-self/net/ip_tables_names", "iptables-legacy-save"),
            ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save"),
        ] {
            // The legacy tables exist only once somebody used them; asking the tool would make them.
            if std::fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty())
                && let Some(output) = run(tool, &[])?
            {
                for (name, chains) in text::iptables_chains(&output) {
                    let name = format!("{} {name}", tool.trim_end_matches("-legacy-save"));
                    tables.push(Table { name, source: Source::Iptables, chains });
                }
            }
        }
    }
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    for (module, table) in
        [("ebtable_filter", "filter"), ("ebtable_nat", "nat"), ("ebtable_broute", "broute")]
    {
        if modules.lines().any(|line| line.split(' ').next() == Some(module))
            && let Some(output) = run("ebtables-legacy", &["-t", table, "-L"])?
        {
            let chains = text::ebtables_chains(&output);
            tables.push(Table { name: format!("ebtables {table}"), source: Source::Ebtables, chains });
        }
    }
    Ok(tables)
}

/// Whether bridged packets pass iptables: by the namespace's sysctls, or by a bridge's own switch.
fn calls_iptables(view: &View) -> bool {
    let sysctl = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/bridge/{name}")).is_ok_and(|value| value.trim() == "1")
    };
    sysctl("bridge-nf-call-iptables")
        || sysctl("bridge-nf-call-ip6tables")
        || view.links.iter().any(|link| matches!(link.kind, Kind::Bridge { calls_iptables: true, .. }))
}

/// A tool's output; `None` where there is no such tool.
fn run(tool: &str, arguments: &[&str]) -> io::Result<Option<String>> {
    let output = match Command::new(tool).args(arguments).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{tool} {}: {}", arguments.join(" "), said.trim())));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

async fn tc_objects(handle: &Handle, index: i32) -> io::Result<Vec<TcObject>> {
    let mut objects = Vec::new();
    let qdiscs: Vec<TcMessage> =
        handle.qdisc().get().index(index).execute().try_collect().await.map_err(io::Error::other)?;
    let qdiscs: Vec<TcMessage> = qdiscs.into_iter().filter(|qdisc| qdisc.header.index == index).collect();
    let mut parents = Vec::new();
    for qdisc in &qdiscs {
        let kind = kind(qdisc);
        match kind.as_str() {
            "clsact" => parents.extend([(true, ingress()), (false, egress())]),
            "ingress" => parents.push((true, ingress())),
            _ if qdisc.header.handle != TcHandle::UNSPEC => parents.push((false, qdisc.header.handle)),
            _ => {}
        }
        objects.push(TcObject::Qdisc { kind });
    }
    for (ingress, parent) in parents {
        let request = handle.traffic_filter(index).get();
        let request = match (ingress, parent == egress()) {
            (true, _) => request.ingress(),
            (false, true) => request.egress(),
            (false, false) => request.root(),
        };
        let filters: Vec<TcMessage> = request.execute().try_collect().await.map_err(io::Error::other)?;
        objects.extend(
            filters.iter().filter(|filter| filter.header.index == index).map(|filter| TcObject::Filter {
                ingress,
                kind: kind(filter),
                program: program(filter),
            }),
        );
    }
    Ok(objects)
}

/// Programs that hang on the interface itself (tcx, Linux 6.6), which no qdisc lists.
fn tcx_objects(index: u32) -> io::Result<Vec<TcObject>> {
    let programs = datapath::tcx_programs(index).map_err(io::Error::other)?;
    let objects = programs.into_iter().map(|(direction, id, name)| TcObject::Filter {
        ingress: direction == Direction::Ingress,
        kind: "tcx".to_owned(),
        program: Some(format!("{name} (id {id})")),
    });
    Ok(objects.collect())
}

fn ingress() -> TcHandle {
    TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_INGRESS }
}

fn egress() -> TcHandle {
    TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_EGRESS }
}

fn kind(message: &TcMessage) -> String {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    kind.unwrap_or_default()
}

fn program(message: &TcMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        }),
        _ => None,
    })
}
