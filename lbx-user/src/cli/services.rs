//! `lbx services`.

use super::Done;
use super::args::Watch;
use super::output::{self, grouped, number};
use super::session::Session;
use crate::api::model::{Service, Services};

pub(super) fn services(session: &Session, watch: Watch) -> Done {
    let gather = || session.look("/v1/services", &(), |view| view.services());
    output::watch(session, watch, gather, table)
}

fn table(answer: &Services) -> String {
    if answer.services.is_empty() {
        return "there is no service".to_owned();
    }
    let mut table = output::table([
        "SERVICE",
        "ADDRESS",
        "SWITCH",
        "FORWARD",
        "ALGORITHM",
        "TARGETS",
        "FLOWS",
        "PACKETS",
        "DROPS",
        "STATE",
    ]);
    for service in &answer.services {
        table.add_row(vec![
            service.name.as_str().into(),
            addresses(service).into(),
            place(service).into(),
            service.forward.as_str().into(),
            service.algorithm.as_str().into(),
            number(format!("{}/{}", service.targets_active, service.targets)),
            number(grouped(service.live_flows)),
            number(grouped(service.counters.packets)),
            number(grouped(service.counters.drops)),
            if service.active { "active" } else { "suspended" }.into(),
        ]);
    }
    let mut text = output::text(&table);
    for service in &answer.services {
        if let Some(why) = &service.suspended {
            text.push_str(&format!("\n{} is suspended: {why}", service.name));
        }
    }
    text
}

/// `tcp 192.0.2.10:80`, a line for each VIP.
fn addresses(service: &Service) -> String {
    let port = match (service.port_first, service.port_last) {
        (0, u16::MAX) => "*".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let each = service.vips.iter().map(|vip| {
        if vip.is_ipv4() {
            format!("{} {vip}:{port}", service.protocol)
        } else {
            format!("{} [{vip}]:{port}", service.protocol)
        }
    });
    each.collect::<Vec<_>>().join("\n")
}

fn place(service: &Service) -> String {
    if service.vlan == 0 {
        service.switch.clone()
    } else {
        format!("{} vlan {}", service.switch, service.vlan)
    }
}
