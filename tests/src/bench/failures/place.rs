//! A lab with two hosts and lbx on both, and one migration in it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lbx_common::target::State;
use serde_json::{Value, json};

use super::watch::Watch;
use super::{Failure, Outcome, Phase, Runs};
use crate::guest::echo;
use crate::lab::client::{http, udp};
use crate::lab::config::{File, Service, Target};
use crate::lab::migrate::Options;
use crate::lab::offload::Offloads;
use crate::lab::process::Process;
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, Migration, VmKind, VmSpec, addr, tools};
use crate::scenario::peers::{certificates, name, top};
use crate::scenario::states::state;
use crate::scenario::{eventually, vip};

/// The guest that migrates.
const VM: &str = "vm1";
/// Its targets.
const TARGETS: [&str; 2] = ["web/vm1", "udp/vm1"];
/// Far more than anything takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);
/// After the time by which traffic is to be right it is looked at for so long.
const BEYOND: Duration = Duration::from_secs(2);

pub(super) struct Place {
    // Before the lab: daemons end before their namespaces do.
    lbx: Vec<Lbx>,
    /// What is left of the QEMU at the source.
    old: Option<Process>,
    lab: Lab,
}

impl Place {
    pub(super) fn build() -> Result<Self> {
        let mut spec = LabSpec::hosts(&[1, 0], VmKind::Guest);
        spec.hosts[0].vms.push(VmSpec::stand_in("vm2"));
        spec.clients[0].offloads = Offloads::sender(false);
        let lab = Lab::start(spec)?;
        let dir = lab.record.dir().join("peers");
        let file = |host: usize| {
            let (guest, other) = (&lab.vms[0], &lab.vms[1]);
            let other = || {
                if host == 0 { Target::local(&other.port, other.addr) } else { Target::remote(other) }
            };
            let service = |name, protocol, port| {
                Service::dsr(name, addr::vip(0), protocol, port, vec![Target::guest(guest), other()])
            };
            let services = vec![service("web", "tcp", 80), service("udp", "udp", echo::PORT)];
            let place = if host == 0 { "{vm}".to_owned() } else { format!("{{vm}}-on{host}") };
            let qmp = lab.record.dir().join(format!("{place}.qmp2"));
            let mut top = top(&lab, host, &name(host), &dir);
            top += &format!("[measure]\nqmp = \"{}\"\n[migration]\nslow_start = \"1s\"\n", qmp.display());
            File { top, ..File::of_guests(services) }.text()
        };
        let mut lbx: Vec<Lbx> =
            (0..2).map(|host| Lbx::new(&lab, host, &file(host))).collect::<Result<_>>()?;
        certificates(&lbx[0], &dir, &[&name(0), &name(1)])?;
        lbx[0].run()?;
        let place = Self { lbx, old: None, lab };
        // The first host is the one that answers for the VIP.
        until("it is served", || Ok(place.get().is_ok()))?;
        let mut place = place;
        place.lbx[1].run()?;
        until("both know each other", || {
            let up = |lbx: &Lbx| -> Result<bool> { Ok(lbx.json(&["peers"])?["peers"][0]["state"] == "up") };
            Ok(up(&place.lbx[0])? && up(&place.lbx[1])?)
        })?;
        until("the guest's monitor is heard", || {
            let load = place.lbx[0].json(&["load", "--vm", VM])?;
            let metrics = load["vms"][0]["metrics"].as_array().cloned().unwrap_or_default();
            Ok(metrics.iter().any(|metric| metric["name"] == "vm_qmp" && !metric["value"].is_null()))
        })?;
        Ok(place)
    }

    /// Migrates as far as wanted, lets it fail, and looks.
    pub(super) fn try_it(&mut self, failure: Failure, phase: Phase, runs: Runs) -> Result<Outcome> {
        let flow = self.flow_of_guest()?;
        if (failure, phase) == (Failure::NetworkCut, Phase::Resumed) {
            // The hosts tell each other nothing of what happens.
            self.cut_peers()?;
        }
        let mut migration = Some(self.reach(phase)?);
        let watch = Watch::start(&self.lab.client().ns, flow, web());
        let failed = Instant::now();
        self.fail(failure, phase, &mut migration)?;
        let goal = failure.goal(phase);
        std::thread::sleep((goal + BEYOND).saturating_sub(failed.elapsed()));
        let end = Instant::now();
        let [known, fresh] = watch.stop()?;
        let of_guest = |by: &Option<String>| match (by, runs) {
            (Some(vm), Runs::Here | Runs::There) => vm == VM,
            (Some(vm), Runs::Nowhere) => vm != VM,
            (None, _) => false,
        };
        let bad: Vec<Instant> = known
            .iter()
            .filter(|one| !of_guest(&one.by))
            .chain(fresh.iter().filter(|one| one.by.is_none()))
            .map(|one| one.at)
            .filter(|at| *at >= failed && *at < end)
            .collect();
        let last = bad.iter().max().map(|at| at.duration_since(failed));
        let right_after = match last {
            Some(last) if last + BEYOND / 2 > goal + BEYOND => None,
            last => Some(last.unwrap_or_default()),
        };
        self.mend(failure)?;
        drop(migration);
        Ok(Outcome { right_after, lost: bad.len(), wrong: self.wrong(runs)? })
    }

    /// Begins to migrate, and returns when it is as far as wanted.
    fn reach(&mut self, phase: Phase) -> Result<Migration> {
        self.lbx[0].cli(&["migration", "announce", VM, "--to", &name(1)])?;
        let slow = Options { bandwidth: 1 << 20, ..Options::default() };
        let options = if phase == Phase::Transferring { slow } else { Options::default() };
        let mut migration = self.lab.prepare_migration(VM, 1, options)?;
        until("the destination awaits it", || Ok(last_migration(&self.lbx[1])?["role"] == "destination"))?;
        match phase {
            Phase::Announced => {}
            Phase::Transferring => {
                migration.start()?;
                until("transferring", || {
                    Ok(last_migration(&self.lbx[0])?["phase"] == "transferring"
                        && last_migration(&self.lbx[1])?["phase"] == "transferring")
                })?;
            }
            Phase::Stopped => {
                let wait =
                    json!({ "capabilities": [{ "capability": "pause-before-switchover", "state": true }] });
                migration.source().execute("migrate-set-capabilities", &wait)?;
                migration.start()?;
                until("stopped", || Ok(state(&self.lbx[0], TARGETS[0])? == State::Blackholed))?;
            }
            Phase::Resumed => {
                migration.start()?;
                migration.wait(PATIENCE)?;
            }
        }
        Ok(migration)
    }

    fn fail(&mut self, failure: Failure, phase: Phase, migration: &mut Option<Migration>) -> Result<()> {
        let under_way = migration.as_mut().context("no migration")?;
        match (failure, phase) {
            (Failure::Cancelled, phase) => self.give_up(phase, under_way)?,
            (Failure::DestinationKilled, Phase::Resumed) => {
                self.sit(migration)?;
                self.lab.vm_mut(VM)?.kill();
            }
            (Failure::DestinationKilled, phase) => {
                under_way.destination().kill()?;
                if phase == Phase::Stopped {
                    let go_on = json!({ "state": "pre-switchover" });
                    under_way.source().execute("migrate-continue", &go_on)?;
                }
            }
            (Failure::SourceKilled, Phase::Resumed) => {
                self.sit(migration)?;
                self.old = None;
            }
            (Failure::SourceKilled, _) => self.lab.vm_mut(VM)?.kill(),
            (Failure::NetworkCut, Phase::Resumed) => self.sit(migration)?,
            (Failure::NetworkCut, phase) => {
                self.cut(true)?;
                self.give_up(phase, under_way)?;
            }
            (Failure::DaemonKilled, Phase::Resumed) => {
                self.lbx[0].kill()?;
                self.sit(migration)?;
            }
            (Failure::DaemonKilled, phase) => {
                self.lbx[0].kill()?;
                if phase != Phase::Announced {
                    under_way.cancel()?;
                }
            }
        }
        Ok(())
    }

    /// Whoever migrates it thinks better of it.
    fn give_up(&self, phase: Phase, migration: &mut Migration) -> Result<()> {
        if phase == Phase::Announced {
            self.lbx[0].cli(&["migration", "cancelled", VM])?;
            return Ok(());
        }
        migration.cancel()
    }

    /// The guest's place is the destination; its old process stays until it is ended.
    fn sit(&mut self, migration: &mut Option<Migration>) -> Result<()> {
        let migration = migration.take().context("no migration")?;
        self.old = migration.finish(&mut self.lab)?.1;
        Ok(())
    }

    /// What was broken around the guest works again, and whoever migrated it knows how it stands.
    fn mend(&mut self, failure: Failure) -> Result<()> {
        match failure {
            Failure::NetworkCut => {
                // Whichever of the two it was.
                self.cut(false)?;
                let mut nft = self.lab.hosts[1].ns.command("nft");
                let _ = nft.args(["delete", "table", "inet", "cut"]).output()?;
                Ok(())
            }
            Failure::DaemonKilled => self.lbx[0].run(),
            _ => Ok(()),
        }
    }

    /// The hosts' own addresses do not reach each other; what is behind their bridges does.
    fn cut(&self, on: bool) -> Result<()> {
        for (host, other) in [(0, 1), (1, 0)] {
            let route = format!("{}/32", addr::host(other).v4);
            let verb = if on { "add" } else { "del" };
            let line = format!("route {verb} blackhole {route}");
            let done = tools::ip(&self.lab.hosts[host].ns, &[line]);
            ensure!(done.is_ok() || !on, "{done:?}");
        }
        Ok(())
    }

    fn cut_peers(&self) -> Result<()> {
        let rules = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; \
                     add rule inet cut in tcp dport 9346 drop; add rule inet cut in tcp sport 9346 drop";
        tools::run(self.lab.hosts[1].ns.command("nft").arg(rules))?;
        Ok(())
    }

    /// What is not as it should be, when everything has had its time.
    fn wrong(&self, runs: Runs) -> Result<Vec<String>> {
        use State::{Active, Down, Moved};
        let wanted: [&[State]; 2] = match runs {
            Runs::Here => [&[Active], &[Down, Moved]],
            Runs::There => [&[Moved], &[Active]],
            Runs::Nowhere => [&[Down], &[Down]],
        };
        let mut wrong = Vec::new();
        for (lbx, (host, wanted)) in self.lbx.iter().zip(wanted.iter().enumerate()) {
            for target in TARGETS {
                let right = || Ok(wanted.contains(&state(lbx, target)?));
                if !eventually(PATIENCE / 2, right)? {
                    wrong.push(format!("{target} on {} is {}", name(host), state(lbx, target)?.name()));
                }
            }
            let settled = || {
                let last = last_migration(lbx)?;
                let over = last["over"] == true
                    || ["done", "failed", "cancelled"].contains(&last["phase"].as_str().unwrap_or_default());
                Ok(last.is_null() || over)
            };
            if !eventually(PATIENCE / 2, settled)? {
                wrong.push(format!("its migration on {}: {}", name(host), last_migration(lbx)?["phase"]));
            }
            let log = lbx.log();
            wrong.extend(
                log.lines()
                    .filter(|line| line.contains("panicked") || line.contains("ERROR"))
                    .map(Into::into),
            );
        }
        if runs != Runs::Nowhere {
            // It gets new ones where it runs, and where it does not it gets none.
            let served =
                eventually(PATIENCE / 2, || Ok((0..20).any(|_| self.get().is_ok_and(|vm| vm == VM))))?;
            if served != (runs == Runs::Here) {
                wrong.push(format!("new connections of the first host come to {VM}: {served}"));
            }
        }
        Ok(wrong)
    }

    /// Who answers a new connection.
    fn get(&self) -> Result<String> {
        let ask = || http::request_within(web(), "GET", "/", b"", Duration::from_millis(500));
        let answer = self.lab.client().ns.run(ask)??;
        Ok(answer.vm)
    }

    /// A flow that the guest has.
    fn flow_of_guest(&self) -> Result<UdpSocket> {
        let at = (vip(0, Family::V4), echo::PORT).into();
        for _ in 0..300 {
            let flow = self.lab.client().ns.run(|| udp::socket(at, None, Duration::from_millis(500)))??;
            if udp::ask(&flow, b"who").is_ok_and(|vm| vm == VM) {
                // Once more: from its second packet on it is known for certain.
                udp::ask(&flow, b"again")?;
                return Ok(flow);
            }
        }
        bail!("no flow came to {VM}")
    }

    /// What both say of themselves.
    pub(super) fn story(&self) -> String {
        let say = |lbx: &Lbx| {
            let said = [&["targets"][..], &["migrations", "-v"], &["peers"]]
                .map(|words| lbx.cli(words).unwrap_or_else(|error| format!("{error:#}")));
            format!("{}\n{}", said.join("\n"), lbx.log())
        };
        self.lbx.iter().map(say).collect::<Vec<_>>().join("\n---\n")
    }
}

/// The last migration that a host knows of; null if there is none.
fn last_migration(lbx: &Lbx) -> Result<Value> {
    let all = lbx.json(&["migrations"])?;
    Ok(all["migrations"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    ensure!(eventually(PATIENCE, &mut holds)?, "not within {PATIENCE:?}: {what}");
    Ok(())
}

fn web() -> SocketAddr {
    (vip(0, Family::V4), 80).into()
}
