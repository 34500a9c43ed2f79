//! Peers in the daemon: what they are told, and what follows from what they tell.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lbx_common::migration::Source;

use super::core::Core;
use crate::api::model::{self, Line, Peer, PeerVm, RefusedPeers};
use crate::config::checked::format_mac;
use crate::config::{self, units};
use crate::migration::{self, Told, VmId};
use crate::peers::account::Account;
use crate::peers::message::VmHere;
use crate::peers::table::{self, Row};
use crate::peers::{News, Prepared, What};

impl Core {
    /// Connects to the peers of the config, once it is known what there is to tell them. What is wrong with their files
    /// keeps nobody from steering.
    pub(super) fn start_peers(&mut self) {
        self.peers.ears = self.migrations.ears();
        if let Err(error) = self.peers.start() {
            tracing::error!("no thread to talk to peers: {error}; they are talked to beside everything else");
        }
        match prepare(&self.config) {
            Ok(prepared) => self.peers.follow(prepared),
            Err(error) => {
                let text = format!("no peer is told or heard: {error:#}; mend it, then `lbx reload`");
                self.peers.table.set_problem(Some(text));
            }
        }
    }

    /// What is on this host now.
    pub(super) fn tell_peers(&self) {
        if self.config.peers.is_none() {
            return;
        }
        let mut here = self.host.here.clone();
        let straight: BTreeSet<String> = self
            .desired
            .tunnel
            .iter()
            .flat_map(|tunnel| &tunnel.vms)
            .filter(|vm| vm.straight)
            .map(|vm| format_mac(&vm.mac))
            .collect();
        for vm in &mut here {
            vm.runs = self.runs_here(&vm_id(vm));
            vm.holds = vm.macs.iter().any(|mac| straight.contains(mac));
        }
        self.peers.tell_vms(here);
    }

    /// What peers say of VMs that migrate, for when nobody else says anything.
    pub(super) fn hear_vms(&mut self) {
        let heard = self.peers.table.heard_now();
        let open: Vec<VmId> = self.migrations.ledger.open.values().map(|record| record.vm.clone()).collect();
        for id in open {
            let (vm, absent) = (vm_here(&id), self.runs_here(&id) == Some(false));
            let says = self.peers.table.say(&vm, absent);
            for (peer, runs) in says {
                self.peer_says(&id, &peer, runs);
            }
            let key = self.identify(&id).key;
            let host = self.migrations.ledger.open.get(&key).and_then(|record| record.host.clone());
            let has = host.as_ref().and_then(|host| self.peers.table.has(host, &vm));
            if let (Some(host), Some(has)) = (host, has)
                && (has || self.migrations.ledger.counts(&key, heard.get(&host).copied()))
            {
                self.migrations.ledger.has(&key, &host, has, migration::now());
            }
        }
        self.migrations.ledger.believe(&heard);
    }

    /// Something was news to the core: peers are told, unless it is from one of them. All of them hear each other.
    pub fn pass_on(&mut self, told: &Told) {
        let Some(own) = self.config.peers.as_ref().filter(|_| told.event.source != Source::Peer) else {
            return;
        };
        let vm = self.as_told(&told.vm);
        let id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        if self.peers.ledger.note(id, vm, &told.event, &own.name) {
            self.peers.tell_migrations();
        }
        self.tell_peers();
    }

    /// A VM as peers are told of its migration.
    pub(super) fn as_told(&self, vm: &VmId) -> VmHere {
        let mut vm = vm_here(vm);
        if self.host.view.link(&vm.name).is_some() {
            // The name of an interface means something else on every host.
            vm.name.clear();
        }
        if let Some(known) = self.host.here.iter().find(|one| one.is_same(&vm)) {
            vm.learn(known.clone());
        }
        vm
    }

    /// Once a second.
    pub(super) fn peers_tick(&mut self) {
        if self.peers.ledger.forget(migration::now()) {
            self.peers.tell_migrations();
        }
        if !self.migrations.ledger.open.is_empty() {
            self.tell_peers();
            self.hear_vms();
        }
    }

    /// What a peer tells of migrations, as events of this host.
    fn hear_migrations(&mut self, peer: &str, migrations: &[Account]) {
        let Some(own) = self.config.peers.as_ref().map(|own| own.name.clone()) else { return };
        let unseen = self.peers.unseen(peer, migrations);
        let heard = !unseen.is_empty();
        for (vm, step) in unseen {
            let here = self.host.here.iter().any(|one| one.is_same(vm));
            let mut id = vm_id(vm);
            if self.host.here.iter().any(|one| one.name == vm.name && !one.is_same(vm)) {
                // Another VM has that name here.
                id.name = None;
            }
            match step.event(&own, peer, here, migration::now()) {
                Some(event) => self.migrations.stream.tell(id, event),
                None => tracing::debug!("peer {peer} says of {}: {}", vm.name, step.what),
            }
        }
        if heard {
            self.peers.keep();
        }
    }

    /// News from a peer.
    pub fn peer_news(&mut self, news: &News) {
        match &news.what {
            What::Heard { anew } => tracing::debug!("peer {} is heard, anew: {anew}", news.peer),
            What::Lost { why } => tracing::debug!("peer {} is lost: {why}", news.peer),
            What::Vms(vms) => {
                tracing::debug!("peer {} has {} VMs", news.peer, vms.len());
                self.hear_vms();
            }
            What::Migrations(migrations) => self.hear_migrations(&news.peer, migrations),
        }
    }

    /// The peers.
    pub fn peers(&self) -> model::Peers {
        let table = self.peers.table.lock();
        let own = self.config.peers.as_ref();
        let refused = table
            .refused
            .iter()
            .map(|(reason, count)| RefusedPeers { reason: (*reason).to_owned(), count: *count });
        model::Peers {
            name: own.map(|own| own.name.clone()),
            listen: own.map(|own| own.listen.to_string()),
            problem: table.problem.clone(),
            peers: table.rows.iter().map(|(name, row)| peer(name, row)).collect(),
            refused: refused.collect(),
            last_refusal: table
                .last
                .as_ref()
                .map(|last| format!("{} {} s ago: {}", last.from, last.at.elapsed().as_secs(), last.why)),
        }
    }

    /// What an operator should know of them.
    pub(super) fn peer_notes(&self) -> Vec<String> {
        let table = self.peers.table.lock();
        let problem = table.problem.iter().map(|why| format!("peers: {why}"));
        let silent = table.rows.iter().filter_map(|(name, row)| {
            let problem = peer(name, row).problem?;
            Some(format!("peer {name}: {problem}"))
        });
        problem.chain(silent).collect()
    }
}

/// Reads the files of the peers of a config, if it has any.
///
/// # Errors
/// Which of them is not right.
pub(super) fn prepare(config: &config::Config) -> anyhow::Result<Option<Prepared>> {
    config.peers.as_ref().map(Prepared::read).transpose()
}

fn peer(name: &str, row: &Row) -> Peer {
    let state = match (row.to.up.is_some(), row.from.up.is_some()) {
        (true, true) => "up",
        (true, false) => "told",
        (false, true) => "heard",
        (false, false) => "down",
    };
    let told = row.to.error.as_ref().map(|why| format!("not reached: {why}"));
    let heard = || {
        let never = "it has not connected to this host";
        let why = row.from.error.as_deref().unwrap_or(never);
        row.from.up.is_none().then(|| format!("not heard: {why}"))
    };
    let line = |line: &table::Line| Line {
        up: line.up.is_some(),
        since: line.up.or(line.down).map(ago),
        error: line.error.clone(),
        times: line.times,
        messages: line.messages,
    };
    Peer {
        name: name.to_owned(),
        address: row.address.to_string(),
        state: state.to_owned(),
        told: line(&row.to),
        heard: line(&row.from),
        heard_ms: row.heard.map(|at| at.elapsed().as_millis() as u64),
        version: row.hello.as_ref().map(|hello| hello.software.clone()),
        problem: told.or_else(heard),
        vms: row.vms.iter().map(PeerVm::from).collect(),
    }
}

/// A VM as peers are told of it.
pub(super) fn vm_here(vm: &VmId) -> VmHere {
    VmHere {
        name: vm.name.clone().unwrap_or_default(),
        uuid: vm.uuid.clone(),
        macs: vm.macs.iter().map(format_mac).collect(),
        runs: None,
        holds: false,
    }
}

/// The other way round. A MAC that is none names nobody.
fn vm_id(vm: &VmHere) -> VmId {
    VmId {
        name: Some(vm.name.clone()).filter(|name| !name.is_empty()),
        uuid: vm.uuid.clone(),
        macs: vm.macs.iter().filter_map(|mac| units::mac(mac).ok()).collect(),
    }
}

fn ago(at: Instant) -> u64 {
    at.elapsed().as_secs()
}
