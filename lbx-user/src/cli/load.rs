//! `lbx load`.

use comfy_table::Cell;

use super::args::Load as Options;
use super::output::{self, bytes, grouped, number};
use super::session::{Session, needs_daemon};
use super::{Done, Failure};
use crate::api::model::{Load, Measured, VmLoad};

pub(super) fn load(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut load: Load = session.get("/v1/load", &()).map_err(needs_daemon)?;
        if options.host {
            load.vms.clear();
        }
        if let Some(name) = &options.vm {
            load.host.clear();
            load.vms.retain(|vm| vm.name == *name || vm.targets.contains(name));
            if load.vms.is_empty() {
                return Err(Failure::Failed(anyhow::anyhow!("there is no VM \"{name}\" on this host")));
            }
        }
        Ok(load)
    };
    let whole = options.host || options.vm.is_some();
    output::watch(session, options.watch, gather, |load| if whole { details(load) } else { overview(load) })
}

/// The host in a line, and a line for each VM.
fn overview(load: &Load) -> String {
    let of = |name: &str| load.host.iter().find(|metric| metric.name == name);
    let mut host =
        output::table(["HOST", "CPU", "RUN QUEUE", "MEMORY", "NIC", "DISK", "PSI CPU", "PSI MEM", "PSI IO"]);
    let names = [
        "host_cpu",
        "host_runqueue",
        "host_memory",
        "host_nic",
        "host_disk",
        "host_cpu_pressure",
        "host_memory_pressure",
        "host_io_pressure",
    ];
    let mut row = vec![Cell::new("")];
    row.extend(names.map(|name| number(short(of(name)))));
    host.add_row(row);
    let mut text = output::text(&host);
    text.push_str("\n\n");
    if load.vms.is_empty() {
        text.push_str("there is no VM with a tap in this network namespace");
    } else {
        let mut table =
            output::table(["VM", "VCPUS", "CPU", "STEAL", "MEMORY", "RESIDENT", "DISK", "NET", "QMP"]);
        for vm in &load.vms {
            table.add_row(row_of(vm));
        }
        text.push_str(&output::text(&table));
    }
    let all = || load.host.iter().chain(load.vms.iter().flat_map(|vm| &vm.metrics));
    if all().any(|metric| metric.stale) {
        text.push_str("\n! stale: no newer reading; `lbx load --vm NAME` (or --host) says why");
    }
    if all().any(|metric| metric.value.is_none()) {
        text.push_str("\n- not measured; `lbx load --vm NAME` (or --host) says why");
    }
    text
}

fn row_of(vm: &VmLoad) -> Vec<Cell> {
    let names = ["vm_vcpus", "vm_cpu", "vm_steal", "vm_memory", "vm_resident", "vm_disk", "vm_net", "vm_qmp"];
    let mut row = vec![Cell::new(&vm.name)];
    row.extend(names.map(|name| number(short(vm.metric(name)))));
    row
}

fn short(metric: Option<&Measured>) -> String {
    let Some((metric, value)) = metric.and_then(|metric| Some((metric, metric.value?))) else {
        return "-".to_owned();
    };
    let mark = if metric.stale { "!" } else { "" };
    format!("{}{mark}", figure(&metric.unit, value))
}

/// A value in the notation of its unit.
pub(super) fn figure(unit: &str, value: f64) -> String {
    match unit {
        "share" => format!("{:.1}%", value * 100.0),
        "bytes" => bytes(value as u64),
        "bytes_per_second" => format!("{}/s", bytes(value as u64)),
        "milliseconds" => format!("{value:.2} ms"),
        "per_second" => format!("{}/s", grouped(value.round() as u64)),
        _ if value.fract() == 0.0 => grouped(value as u64),
        _ => format!("{value:.2}"),
    }
}

/// Every metric of the host, or of a VM.
fn details(load: &Load) -> String {
    let mut parts = Vec::new();
    if !load.host.is_empty() {
        parts.push(one("HOST", &load.host));
    }
    for vm in &load.vms {
        let targets = if vm.targets.is_empty() { "no target".to_owned() } else { vm.targets.join(", ") };
        let head = format!("{}: process {}, {}, {targets}", vm.name, vm.pid, vm.nics.join(" "));
        parts.push(format!("{head}\n{}", one("METRIC", &vm.metrics)));
    }
    if parts.is_empty() { "nothing was measured yet".to_owned() } else { parts.join("\n\n") }
}

fn one(head: &str, metrics: &[Measured]) -> String {
    let mut table = output::table([head, "VALUE", "AGE", "SOURCE", "COST", ""]);
    for metric in metrics {
        let value = metric.value.map_or("-".to_owned(), |value| figure(&metric.unit, value));
        let age = metric.age_ms.map_or("-".to_owned(), |age| format!("{:.1} s", age as f64 / 1e3));
        let cost = metric.cost_us.map_or("-".to_owned(), |cost| format!("{cost} µs"));
        let stale = if metric.stale { "stale" } else { "" };
        let note = match (&metric.why, stale) {
            (Some(why), "") => why.clone(),
            (Some(why), stale) => format!("{stale}: {why}"),
            (None, stale) => stale.to_owned(),
        };
        table.add_row(vec![
            Cell::new(&metric.name),
            number(value),
            number(age),
            Cell::new(metric.source.as_deref().unwrap_or("-")),
            number(cost),
            Cell::new(note),
        ]);
    }
    output::text(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, unit: &str, value: Option<f64>, stale: bool, why: Option<&str>) -> Measured {
        let why = why.map(ToOwned::to_owned);
        let age_ms = value.map(|_| 1_500);
        let source = value.map(|_| "test".to_owned());
        Measured { name: name.into(), unit: unit.into(), value, age_ms, stale, source, cost_us: Some(7), why }
    }

    #[test]
    fn stale_and_absent_are_told_apart() {
        let vm = VmLoad {
            name: "web-1".into(),
            pid: 7,
            nics: vec!["tap0".into()],
            targets: vec!["web/web-1".into()],
            metrics: vec![
                measured("vm_cpu", "share", Some(0.123), false, None),
                measured("vm_qmp", "milliseconds", Some(0.5), true, Some("no answer for 9 s")),
                measured("vm_memory", "share", None, false, Some("no balloon")),
            ],
        };
        let load = Load { stale_after_ms: 4_000, host: Vec::new(), vms: vec![vm] };
        let text = overview(&load);
        for says in ["12.3%", "0.50 ms!", "! stale", "- not measured"] {
            assert!(text.contains(says), "{says}: {text}");
        }
        let text = details(&load);
        for says in ["web/web-1", "stale: no answer for 9 s", "no balloon", "1.5 s", "7 µs"] {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(
            text.lines().chain(overview(&load).lines()).all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }

    #[test]
    fn figures_have_their_units() {
        assert_eq!(figure("bytes_per_second", 2048.0), "2.0 KiB/s");
        assert_eq!(figure("count", 4.0), "4");
        assert_eq!(figure("count", 1.25), "1.25");
        assert_eq!(figure("per_second", 1234.4), "1,234/s");
    }
}
