//! `lbx peers`, and `lbx peers init`.

use super::args::{Peers as Options, PeersInit, PeersWhat};
use super::output::{self, number, span};
use super::session::{Session, needs_daemon};
use super::{Done, Failure};
use crate::api::model::{Peer, Peers};
use crate::config::peers::is_name;
use crate::peers::authority;

pub(super) fn peers(session: &Session, options: &Options) -> Done {
    match &options.what {
        None => output::watch(
            session,
            options.watch,
            || session.get("/v1/peers", &()).map_err(needs_daemon),
            table,
        ),
        Some(PeersWhat::Init(options)) => init(session, options),
    }
}

fn table(answer: &Peers) -> String {
    let Some(name) = &answer.name else {
        return "this host has no peers: [peers] and [[peer]] in the config name them".to_owned();
    };
    let mut lines = Vec::new();
    let listen = answer.listen.as_deref().unwrap_or("-");
    lines.push(format!("this host is {name}, listening on {listen}"));
    lines.extend(answer.problem.iter().cloned());
    if answer.peers.is_empty() {
        lines.push("no [[peer]] is listed".to_owned());
    } else {
        let mut table = output::table(["PEER", "ADDRESS", "STATE", "SINCE", "HEARD", "VMS", "VERSION"]);
        for peer in &answer.peers {
            table.add_row(row(peer));
        }
        lines.push(output::text(&table));
    }
    let problem = |peer: &Peer| peer.problem.as_ref().map(|why| format!("{}: {why}", peer.name));
    lines.extend(answer.peers.iter().filter_map(problem));
    if !answer.refused.is_empty() {
        let counts = answer.refused.iter().map(|one| format!("{} {}", one.count, one.reason));
        let last = answer.last_refusal.as_deref().unwrap_or_default();
        lines.push(format!("refused: {}; the last {last}", counts.collect::<Vec<_>>().join(", ")));
    }
    lines.join("\n")
}

fn row(peer: &Peer) -> Vec<comfy_table::Cell> {
    // Of two directions the one that changed last, where both are alike.
    let since = match peer.state.as_str() {
        "told" => peer.heard.since.or(peer.told.since),
        "heard" => peer.told.since.or(peer.heard.since),
        _ => peer.told.since.into_iter().chain(peer.heard.since).min(),
    };
    let heard = peer.heard_ms.map_or_else(
        || "never".to_owned(),
        |ms| if ms < 1000 { format!("{ms} ms") } else { span(ms / 1000) },
    );
    vec![
        peer.name.as_str().into(),
        peer.address.as_str().into(),
        peer.state.as_str().into(),
        since.map_or_else(|| "-".to_owned(), span).into(),
        number(heard),
        number(peer.vms.len()),
        peer.version.as_deref().unwrap_or("-").into(),
    ]
}

/// What `lbx peers init` made.
#[derive(serde::Serialize)]
struct Made {
    files: Vec<String>,
    config: Vec<String>,
}

fn init(session: &Session, options: &PeersInit) -> Done {
    if let Some(bad) = options.names.iter().find(|name| !is_name(name)) {
        let what = "lower-case letters, digits and hyphens, with dots between";
        return Err(Failure::Usage(format!("\"{bad}\" is not the name of a host: {what}")));
    }
    let made = authority::init(&options.dir, &options.names)?;
    let files = made.iter().map(|path| path.display().to_string()).collect();
    let config = options.names.iter().map(|name| sample(name, &options.names)).collect();
    output::show(session, &Made { files, config }, |made| text(options, made))
}

fn text(options: &PeersInit, made: &Made) -> String {
    let mut lines: Vec<String> = made.files.iter().map(|file| format!("made {file}")).collect();
    if lines.is_empty() {
        lines.push(format!("{} has everything already", options.dir.display()));
    }
    lines.push(String::new());
    lines.push(
        "Copy ca.pem and a host's own .pem and .key to /etc/lbx/peers on that host; ca.key stays here, in a safe\n\
         place. Then the hosts' configs (put their addresses in):"
            .to_owned(),
    );
    for config in &made.config {
        lines.push(String::new());
        lines.push(config.clone());
    }
    lines.join("\n")
}

/// The lines of one host's config.
fn sample(name: &str, all: &[String]) -> String {
    let mut text = format!(
        "# {name}\n[peers]\nname = \"{name}\"\nlisten = \"ADDRESS-OF-{name}:9346\"\n\
         ca = \"/etc/lbx/peers/ca.pem\"\ncertificate = \"/etc/lbx/peers/{name}.pem\"\n\
         key = \"/etc/lbx/peers/{name}.key\"\n"
    );
    for other in all.iter().filter(|other| *other != name) {
        text.push_str(&format!("\n[[peer]]\nname = \"{other}\"\naddress = \"ADDRESS-OF-{other}:9346\"\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{Line, RefusedPeers};

    #[test]
    fn the_table_tells_what_is_wrong() {
        assert!(table(&Peers::default()).contains("[[peer]]"));
        let up = Line { up: true, since: Some(70), ..Line::default() };
        let good = Peer {
            name: "kvm2".into(),
            address: "10.0.0.2:9346".into(),
            state: "up".into(),
            told: up.clone(),
            heard: up,
            heard_ms: Some(120),
            ..Peer::default()
        };
        let bad = Peer {
            name: "kvm3".into(),
            state: "down".into(),
            problem: Some("not reached: Connection refused".into()),
            ..Peer::default()
        };
        let answer = Peers {
            name: Some("kvm1".into()),
            listen: Some("10.0.0.1:9346".into()),
            peers: vec![good, bad],
            refused: vec![RefusedPeers { reason: "tls".into(), count: 3 }],
            last_refusal: Some("10.0.0.9:5 2 s ago: bad".into()),
            ..Peers::default()
        };
        let text = table(&answer);
        for says in ["kvm1, listening", "120 ms", "1m10s", "kvm3: not reached", "refused: 3 tls", "never"] {
            assert!(text.contains(says), "{says}: {text}");
        }
    }

    #[test]
    fn the_lines_it_prints_are_a_config() {
        let names = ["kvm1".to_owned(), "kvm2".to_owned()];
        let text = sample("kvm1", &names).replace("ADDRESS-OF-kvm1", "10.0.0.1");
        let text = text.replace("ADDRESS-OF-kvm2", "10.0.0.2");
        let peers = crate::config::Config::parse("f", &text).unwrap().peers.unwrap();
        assert_eq!((peers.name.as_str(), peers.others.len()), ("kvm1", 1));
    }
}
