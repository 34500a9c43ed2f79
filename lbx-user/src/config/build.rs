//! From the tree to the checked config: the top of the file, `[daemon]`, `[limits]`, `[timeouts]`, `[[switch]]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lbx_common::limits::{FLOWS_DEFAULT, MAX_SERVICES, MAX_TARGETS, TABLE_SIZE};
use toml::de::DeTable;

use super::checked::{Config, Daemon, Limits, Switch, TcChoice, Timeouts, XdpChoice};
use super::problem::{Problems, Severity};
use super::raw::{At, Report, Table};
use super::{libvirt, measure, migration, overlap, peers, service, tunnel, units, weights};

/// Slots of a Maglev table: fewer is too coarse for weights, more is memory for nothing.
pub(super) const TABLE_SIZES: RangeInclusive<u64> = 251..=1_048_573;
const FLOWS: RangeInclusive<u64> = 65_536..=8_388_608;

/// Read `text`; see [`Config::parse`].
pub(super) fn build(file_name: &str, text: &str) -> Result<Config, Problems> {
    let report = Report::new(file_name, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let span = error.span().unwrap_or(0..0);
        report.error(&span, "", format!("not TOML: {}", error.message()), None);
    }
    let config = {
        let root = Table::new(document.get_ref(), 0..0, String::new(), &report);
        read(&root)
    };
    let problems = report.into_problems();
    // After a syntax error the tree has holes; what is said about them besides would be noise.
    if !syntax.is_empty() {
        return Err(Problems(problems.into_iter().filter(|problem| problem.key.is_empty()).collect()));
    }
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Problems(problems));
    }
    Ok(Config { warnings: problems, ..config })
}

fn read(root: &Table<'_, '_>) -> Config {
    let daemon = root.table("daemon").map(|table| daemon(&table));
    let limits = root.table("limits").map(|table| limits(&table)).unwrap_or_default();
    let timeouts = root.table("timeouts").map(|table| timeouts(&table)).unwrap_or_default();
    let measure = root.table("measure").map(|table| measure::measure(&table)).unwrap_or_default();
    let weights =
        root.table("weights").map(|table| weights::weights(&table, measure.load)).unwrap_or_default();
    let peers = peers::peers(root);
    let tunnels = peers.as_ref().is_some_and(|peers| peers.tunnel.is_some());
    let migration =
        root.table("migration").map(|table| migration::migration(&table, tunnels)).unwrap_or_default();
    let libvirt = root.table("libvirt").map(|table| libvirt::libvirt(&table)).unwrap_or_default();
    let switches: Vec<_> = root.tables("switch").iter().map(switch).collect();
    unique_switches(&switches);
    let switches: Vec<At<Switch>> = switches.into_iter().filter_map(|(_, switch)| switch).collect();
    let services = service::read_all(root, &switches, &limits);
    root.finish();

    if switches.is_empty() && !root.has("switch") {
        root.warn("switch", "no switch is configured, so there is nothing to attach to", None);
    }
    overlap::check(&services, root.report());
    tunnel::no_vip(peers.as_ref().and_then(|peers| peers.tunnel.as_ref()), &services, root.report());
    Config {
        daemon: daemon.unwrap_or_default(),
        limits,
        timeouts,
        measure,
        weights,
        peers,
        migration,
        libvirt,
        switches: switches.into_iter().map(|switch| switch.value).collect(),
        services: services.into_iter().map(|service| service.service).collect(),
        warnings: Vec::new(),
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/lbx/lbx.sock"),
            metrics_listen: None,
            vm_users: vec!["libvirt-qemu".to_owned(), "qemu".to_owned()],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: FLOWS_DEFAULT, services: MAX_SERVICES, targets: MAX_TARGETS, table_size: TABLE_SIZE }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_mins(15),
            tcp_new: Duration::from_secs(30),
            tcp_closed: Duration::from_secs(10),
            udp: Duration::from_mins(1),
            other: Duration::from_mins(1),
            learn: Duration::from_mins(1),
        }
    }
}

fn daemon(table: &Table<'_, '_>) -> Daemon {
    let mut daemon = Daemon::default();
    if let Some(socket) = table.string("socket") {
        daemon.socket = PathBuf::from(socket.value);
        // 108 bytes of sun_path with the closing zero (unix(7)).
        if !daemon.socket.is_absolute() || daemon.socket.as_os_str().len() > 107 {
            table.error("socket", "a unix socket needs an absolute path of at most 107 bytes", None);
        }
    }
    if let Some(listen) = table.string("metrics_listen") {
        match listen.value.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => daemon.metrics_listen = Some(address),
            Ok(address) => table.error(
                "metrics_listen",
                format!("{address} is not a loopback address; metrics have no access control of their own"),
                Some("use 127.0.0.1 and put a proxy with authentication in front".to_owned()),
            ),
            Err(_) => table.error(
                "metrics_listen",
                format!("\"{}\" is not an address with a port", listen.value),
                Some("write it like \"127.0.0.1:9345\"".to_owned()),
            ),
        }
    }
    if let Some(users) = table.strings("vm_users") {
        for user in &users {
            if user.value.is_empty() || user.value.contains([':', '/', ' ']) {
                let key = table.key("vm_users");
                table.report().error(
                    &user.span,
                    &key,
                    format!("\"{}\" is not a user's name", user.value),
                    None,
                );
            }
        }
        daemon.vm_users = users.into_iter().map(|user| user.value).collect();
    }
    table.finish();
    daemon
}

fn limits(table: &Table<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(flows) = table.integer("flows", FLOWS) {
        limits.flows = (flows.value as u32).next_power_of_two();
    }
    if let Some(services) = table.integer("services", 1..=u64::from(MAX_SERVICES)) {
        limits.services = services.value as u32;
    }
    if let Some(targets) = table.integer("targets", 1..=u64::from(MAX_TARGETS)) {
        limits.targets = targets.value as u32;
    }
    if let Some(size) = table_size(table) {
        limits.table_size = size;
    }
    table.finish();
    limits
}

/// `table_size`, in `[limits]` and in a service: a prime, or Maglev's permutations would not reach every slot.
pub(super) fn table_size(table: &Table<'_, '_>) -> Option<u32> {
    let size = table.integer("table_size", TABLE_SIZES)?;
    if !units::is_prime(size.value) {
        table.error(
            "table_size",
            format!("{} is not a prime", size.value),
            Some(format!("the next prime is {}", units::prime_from(size.value))),
        );
        return None;
    }
    Some(size.value as u32)
}

/// A duration between `range`'s ends.
pub(super) fn duration(
    table: &Table<'_, '_>,
    key: &'static str,
    range: &RangeInclusive<Duration>,
) -> Option<Duration> {
    let text = table.number_or_text(key)?;
    match units::duration(&text.value) {
        Ok(value) if range.contains(&value) => Some(value),
        Ok(_) => {
            let (low, high) = (units::format_duration(*range.start()), units::format_duration(*range.end()));
            table.error(key, format!("{} is outside {low} to {high}", text.value), None);
            None
        }
        Err(reason) => {
            table.error(key, reason, None);
            None
        }
    }
}

fn timeouts(table: &Table<'_, '_>) -> Timeouts {
    let range = Duration::from_secs(1)..=Duration::from_hours(168);
    let mut timeouts = Timeouts::default();
    let fields = [
        ("tcp_established", &mut timeouts.tcp_established),
        ("tcp_new", &mut timeouts.tcp_new),
        ("tcp_closed", &mut timeouts.tcp_closed),
        ("udp", &mut timeouts.udp),
        ("other", &mut timeouts.other),
    ];
    for (key, field) in fields {
        if let Some(value) = duration(table, key, &range) {
            *field = value;
        }
    }
    // A bridge forgets a MAC after 5 minutes of silence (ageing_time) unless it is told otherwise.
    if let Some(value) = duration(table, "learn", &(Duration::from_secs(1)..=Duration::from_mins(4))) {
        timeouts.learn = value;
    }
    table.finish();
    timeouts
}

/// One word out of a few.
pub(super) fn choice<T: Clone>(table: &Table<'_, '_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    let text = table.string(key)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(value.clone());
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let hint = super::problem::did_you_mean(&text.value, known.iter().copied())
        .map_or_else(|| format!("one of: {}", known.join(", ")), |word| format!("did you mean \"{word}\"?"));
    table.error(key, format!("\"{}\" is not understood", text.value), Some(hint));
    None
}

/// The name of an interface, or a problem.
pub(super) fn interface(table: &Table<'_, '_>, key: &str, name: &At<String>) -> bool {
    if let Some(reason) = units::bad_interface_name(&name.value) {
        table.report().error(&name.span, &table.key(key), format!("\"{}\" {reason}", name.value), None);
        return false;
    }
    true
}

fn switch<'a, 'i>(table: &Table<'a, 'i>) -> (Table<'a, 'i>, Option<At<Switch>>) {
    let again = table.fresh();
    let name = table.required_string("name").filter(|name| interface(table, "name", name));
    let xdp = choice(
        table,
        "xdp",
        &[
            ("auto", XdpChoice::Auto),
            ("native", XdpChoice::Native),
            ("generic", XdpChoice::Generic),
            ("off", XdpChoice::Off),
        ],
    );
    let tc = choice(
        table,
        "tc",
        &[("auto", TcChoice::Auto), ("tcx", TcChoice::Tcx), ("clsact", TcChoice::Clsact)],
    );
    let uplinks = table.strings("uplinks");
    if let Some(uplinks) = &uplinks {
        if uplinks.is_empty() {
            table.error(
                "uplinks",
                "the list is empty, so no packet would ever come in",
                Some("leave `uplinks` out to have them found from the bridge".to_owned()),
            );
        }
        for (n, uplink) in uplinks.iter().enumerate() {
            interface(table, "uplinks", uplink);
            if uplinks[..n].iter().any(|earlier| earlier.value == uplink.value) {
                let message = format!("\"{}\" is named twice", uplink.value);
                table.report().error(&uplink.span, &table.key("uplinks"), message, None);
            }
        }
    }
    table.finish();
    let switch = name.map(|name| At {
        span: name.span,
        value: Switch {
            name: name.value,
            xdp: xdp.unwrap_or(XdpChoice::Auto),
            tc: tc.unwrap_or(TcChoice::Auto),
            uplinks: uplinks.map(|list| list.into_iter().map(|uplink| uplink.value).collect()),
        },
    });
    (again, switch)
}

fn unique_switches(switches: &[(Table<'_, '_>, Option<At<Switch>>)]) {
    for (n, (table, switch)) in switches.iter().enumerate() {
        let Some(switch) = switch else { continue };
        for earlier in switches[..n].iter().filter_map(|(_, earlier)| earlier.as_ref()) {
            if earlier.value.name == switch.value.name {
                let line = table.report().line(&earlier.span);
                table.error("name", format!("the switch is already described on line {line}"), None);
            }
            let theirs = earlier.value.uplinks.iter().flatten();
            for uplink in theirs.filter(|name| switch.value.uplinks.iter().flatten().any(|own| own == *name))
            {
                let other = &earlier.value.name;
                table.error("uplinks", format!("\"{uplink}\" is already an uplink of \"{other}\""), None);
            }
        }
    }
}
