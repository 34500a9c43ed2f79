//! `[service.health]`.

use std::time::Duration;

use crate::config::build::duration;
use crate::config::checked::{Health, HealthCheck, Ports, Probe, Protocol, Target};
use crate::config::raw::Table;

/// What of the service decides whether a check knows where to go.
#[derive(Clone, Copy)]
struct Known<'a> {
    protocol: Option<Protocol>,
    ports: Option<Ports>,
    targets: &'a [Target],
}

/// How a service's targets are probed.
pub(super) fn health(
    service: &Table<'_, '_>,
    protocol: Option<Protocol>,
    ports: Option<Ports>,
    targets: &[Target],
) -> Health {
    let Some(table) = service.table("health") else { return Health::default() };
    let known = Known { protocol, ports, targets };
    let mut checks = Vec::new();
    checks
        .extend(table.table("tcp").map(|one| check(&one, |one| Some(Probe::Tcp { port: port(one) }), known)));
    checks.extend(table.table("http").map(|one| check(&one, http, known)));
    checks.extend(table.table("icmp").map(|one| check(&one, |_| Some(Probe::Icmp), known)));
    checks.extend(table.table("command").map(|one| check(&one, command, known)));
    table.finish();
    if checks.is_empty() && !["tcp", "http", "icmp", "command"].iter().any(|key| table.has(key)) {
        service.warn("health", "nothing is probed", Some("add `tcp = { interval = \"2s\" }`".to_owned()));
    }
    Health { checks: checks.into_iter().flatten().collect() }
}

/// One check: what all have in common, and what `probe` reads.
fn check(
    table: &Table<'_, '_>,
    probe: impl FnOnce(&Table<'_, '_>) -> Option<Probe>,
    known: Known<'_>,
) -> Option<HealthCheck> {
    let intervals = Duration::from_millis(100)..=Duration::from_hours(1);
    let interval = duration(table, "interval", &intervals).unwrap_or(Duration::from_secs(2));
    let timeouts = Duration::from_millis(10)..=Duration::from_hours(1);
    let given = duration(table, "timeout", &timeouts);
    if given.is_some_and(|timeout| timeout > interval) {
        table.error("timeout", "the timeout is longer than the interval", None);
    }
    let count = |key| table.integer(key, 1..=1_000).map(|count| count.value as u32);
    let (rise, fall) = (count("rise").unwrap_or(2), count("fall").unwrap_or(3));
    let probe = probe(table);
    table.finish();
    let timeout = given.unwrap_or(Duration::from_secs(1)).min(interval);
    let probe = probe?;
    where_to(table, &probe, known);
    Some(HealthCheck { probe, interval, timeout, rise, fall })
}

/// Whether each target has the port and the address that the check needs.
fn where_to(table: &Table<'_, '_>, probe: &Probe, known: Known<'_>) {
    let Known { protocol, ports, targets } = known;
    if probe.needs_port() && !table.has("port") {
        let several = ports.is_some_and(|ports| ports.single().is_none())
            && (targets.is_empty() || targets.iter().any(|target| target.port.is_none()));
        let why = match protocol {
            Some(Protocol::Udp) => Some("the service is UDP, so its port may not answer TCP"),
            _ if several => Some("the service has more than one port"),
            _ => None,
        };
        if let Some(why) = why {
            let hint = "add `port = …`, the one to connect to";
            table.report().error(&table.span, &table.key("port"), why, Some(hint.to_owned()));
        }
    }
    let without = targets.iter().find(|target| target.address.is_none() && target.address6.is_none());
    if let Some(target) = without.filter(|_| probe.needs_address()) {
        let message = format!(
            "\"{}\" has no `address`: until this host happens to know it, the target is not used",
            target.name()
        );
        let hint = "give the target its own `address`; the VIP will not do";
        table.report().warn(&table.span, &table.path, message, Some(hint.to_owned()));
    }
}

fn port(table: &Table<'_, '_>) -> Option<u16> {
    table.integer("port", 1..=65_535).map(|port| port.value as u16)
}

fn http(table: &Table<'_, '_>) -> Option<Probe> {
    let path = table.string("path").map_or_else(|| "/".to_owned(), |path| path.value);
    let plain = |c: char| c.is_ascii_graphic() && c != '#';
    if !path.starts_with('/') || !path.chars().all(plain) {
        let hint = "it starts with `/`; blanks and other characters are written as %20";
        table.error("path", format!("\"{path}\" is not a path"), Some(hint.to_owned()));
    }
    let host = table.string("host").map(|host| host.value);
    if host.as_ref().is_some_and(|host| host.is_empty() || !host.chars().all(|c| c.is_ascii_graphic())) {
        table.error("host", "not a name that can stand in a `Host` header", None);
    }
    let status = match table.number_or_text("status") {
        None => Some((200, 399)),
        Some(text) => {
            let range = status(&text.value);
            if range.is_none() {
                let hint = "one status (200), or a range (\"200-299\"), between 100 and 599";
                table.error("status", format!("\"{}\" is not a status", text.value), Some(hint.to_owned()));
            }
            range
        }
    };
    let body = table.string("body").map(|body| body.value);
    if body.as_ref().is_some_and(String::is_empty) {
        table.error("body", "every body contains nothing", Some("remove it".to_owned()));
    }
    Some(Probe::Http { port: port(table), path, host, status: status?, body })
}

fn status(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (100 <= first && first <= last && last <= 599).then_some((first, last))
}

fn command(table: &Table<'_, '_>) -> Option<Probe> {
    let port = port(table);
    let Some(argv) = table.strings("argv") else {
        if !table.has("argv") {
            table.missing("argv");
        }
        return None;
    };
    let argv: Vec<String> = argv.into_iter().map(|word| word.value).collect();
    match argv.first() {
        Some(program) if program.starts_with('/') => {}
        _ => {
            let hint = "[\"/usr/local/bin/check\", \"{address}\"]: no shell reads it";
            table.error("argv", "it starts with the absolute path of a program", Some(hint.to_owned()));
            return None;
        }
    }
    if argv.iter().any(|word| word.contains('\0')) {
        table.error("argv", "an argument cannot contain a zero byte", None);
        return None;
    }
    Some(Probe::Command { argv, port })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Severity};

    fn file(health: &str) -> String {
        format!(
            "[[switch]]\nname = \"br0\"\n[[service]]\nname = \"web\"\nswitch = \"br0\"\nvip = \"192.0.2.1\"\n\
             protocol = \"tcp\"\nport = 80\n[[service.target]]\nvm = \"a\"\naddress = \"192.0.2.9\"\n\
             [service.health]\n{health}\n"
        )
    }

    #[test]
    fn every_kind_is_read() {
        let text = "tcp = {}\nhttp = { path = \"/up\", status = 204, body = \"ok\", port = 8080 }\n\
                    icmp = { interval = \"1s\", timeout = \"200ms\" }\n\
                    command = { argv = [\"/bin/check\", \"{address}\"], fall = 1 }";
        let config = Config::parse("f", &file(text)).unwrap();
        assert_eq!(config.warnings, []);
        let told: Vec<_> = config.services[0].health.checks.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "tcp every 2s within 1s rise 2 fall 3",
                "http every 2s within 1s rise 2 fall 3 port 8080 GET /up status 204-204 body \"ok\"",
                "icmp every 1s within 200ms rise 2 fall 3",
                "command every 2s within 1s rise 2 fall 1 /bin/check {address}",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, key, says) in [
            ("http = { path = \"up\" }", "http.path", "not a path"),
            ("http = { status = \"2xx\" }", "http.status", "200-299"),
            ("http = { status = 99 }", "http.status", "100 and 599"),
            ("http = { body = \"\" }", "http.body", "nothing"),
            ("icmp = { port = 5 }", "icmp.port", "unknown key"),
            ("command = {}", "command.argv", "missing"),
            ("command = { argv = [] }", "command.argv", "absolute path"),
            ("command = { argv = \"check\" }", "command.argv", "absolute path"),
            ("http = { timeout = \"3s\" }", "http.timeout", "longer"),
            ("https = {}", "https", "`http`"),
        ] {
            let problems = Config::parse("f", &file(text)).unwrap_err().0;
            let errors: Vec<_> = problems.iter().filter(|one| one.severity == Severity::Error).collect();
            assert_eq!((errors.len(), errors[0].line), (1, 13), "{text}: {errors:#?}");
            assert_eq!(errors[0].key, format!("service[web].health.{key}"));
            assert!(errors[0].to_string().contains(says), "{}", errors[0]);
        }
    }

    #[test]
    fn a_target_that_cannot_be_probed_is_a_warning() {
        let text = |health| file(health).replace("address = \"192.0.2.9\"\n", "");
        let warnings = Config::parse("f", &text("icmp = {}")).unwrap().warnings;
        assert!(warnings[0].to_string().contains("has no `address`"), "{warnings:?}");
        let command = text("command = { argv = [\"/bin/check\", \"{target}\"] }");
        assert_eq!(Config::parse("f", &command).unwrap().warnings, []);
    }
}
