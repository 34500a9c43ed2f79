//! The other hosts that run lbx: what they are told, and what they tell.
//!
//! This host connects to every peer of the config and tells it what is so here; on the connections that peers
//! make to this host it hears from them ([`message`]). So there are two connections between two hosts, and each
//! carries news one way only. Nobody waits for a peer: who cannot be reached is tried again, later and later, and
//! is told how things stand when it is back.
//!
//! [`tls`] says who is who, [`frame`] what bytes mean, [`dial`] tells, [`listen`] hears, [`table`] remembers.

pub mod account;
pub mod authority;
pub mod frame;
pub mod here;
pub mod message;
pub mod table;
pub mod tls;

mod dial;
mod kept;
mod listen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config;
use crate::measure::prompt;
use crate::migration::ears::Ears;
use account::{Account, Ledger, Seen, Step};
use message::{Hello, MOST_VMS, Message, VmHere};
use table::Shared;

/// How long connecting, shaking hands and sending may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer is asked this often whether it is there.
const PING: Duration = Duration::from_secs(1);
/// Who says nothing for this long is not there.
const SILENCE: Duration = Duration::from_secs(5);

/// What a peer told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Who.
    pub peer: String,
    /// What.
    pub what: What,
}

/// What there can be to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is heard. `anew`: its daemon has started since it was heard last.
    Heard {
        /// See there.
        anew: bool,
    },
    /// It is not heard any more.
    Lost {
        /// Why.
        why: String,
    },
    /// All VMs it has.
    Vms(Vec<VmHere>),
    /// All migrations it knows of by itself.
    Migrations(Vec<Account>),
}

/// What every peer is told: how things are here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    vms: Arc<Vec<VmHere>>,
    migrations: Arc<Vec<Account>>,
    /// So many times somebody wanted to know who is there.
    asked: u64,
}

impl Told {
    /// What is to be said to one who knows `before`.
    fn since(&self, before: Option<&Self>) -> Vec<Message> {
        let mut news = Vec::new();
        if before.is_none_or(|before| before.vms != self.vms) {
            news.push(Message::Vms { vms: self.vms.to_vec() });
        }
        // Who has just connected and hears nothing of migrations knows of none.
        if before.map_or(!self.migrations.is_empty(), |before| before.migrations != self.migrations) {
            news.push(Message::Migrations { migrations: self.migrations.to_vec() });
        }
        // Who has just connected is asked anyway.
        if before.is_some_and(|before| before.asked != self.asked) {
            news.push(Message::Ping);
        }
        news
    }
}

/// Config and files, read and found to be right.
pub struct Prepared {
    config: config::Peers,
    files: [Vec<u8>; 3],
    identity: tls::Identity,
}

impl Prepared {
    /// Reads the files of a config.
    ///
    /// # Errors
    /// Which of them is not right, and what to do.
    pub fn read(config: &config::Peers) -> Result<Self> {
        let identity = tls::identity(config)?;
        let bytes = |path| fs::read(path).unwrap_or_default();
        let files = [bytes(&config.ca), bytes(&config.certificate), bytes(&config.key)];
        Ok(Self { config: config.clone(), files, identity })
    }
}

/// What both directions need to know.
#[derive(Clone)]
struct Own {
    config: Arc<config::Peers>,
    identity: tls::Identity,
    hello: Hello,
    table: Shared,
    ears: Ears,
}

/// A thread for the connections: what peers say of a VM that runs waits for nobody else's work. Ends when dropped.
struct Thread {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, (sender, ends)) = (runtime.handle().clone(), oneshot::channel());
        thread::Builder::new().name("lbx-peers".into()).spawn(move || {
            prompt::try_first("the thread that talks to peers");
            // An error is the end that is waited for.
            let _ = runtime.block_on(ends);
        })?;
        Ok(Self { handle, _ends: sender })
    }
}

/// This host's connections to and from its peers. Dropping it closes them.
pub struct Peers {
    /// How they are.
    pub table: Shared,
    told: watch::Sender<Told>,
    news: mpsc::Sender<News>,
    heard: Option<mpsc::Receiver<News>>,
    instance: String,
    running: Option<Prepared>,
    tasks: JoinSet<()>,
    /// What this host knows of migrations by itself.
    pub ledger: Ledger,
    seen: BTreeMap<String, Seen>,
    run_dir: Option<PathBuf>,
    /// Who hears at once what must not wait for the core.
    pub ears: Ears,
    /// Where the connections live; none: in the caller's runtime.
    thread: Option<Thread>,
}

impl Default for Peers {
    /// Without any, until [`Peers::follow`].
    fn default() -> Self {
        let (news, heard) = mpsc::channel(64);
        let instance = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        Self {
            table: Shared::default(),
            told: watch::Sender::new(Told::default()),
            news,
            heard: Some(heard),
            instance: instance.trim().to_owned(),
            running: None,
            tasks: JoinSet::new(),
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            run_dir: None,
            ears: Ears::default(),
            thread: None,
        }
    }
}

impl Peers {
    /// Where news of them come out; once.
    pub fn take(&mut self) -> Option<mpsc::Receiver<News>> {
        self.heard.take()
    }

    /// Has connections live on a thread of their own, which goes before others.
    ///
    /// # Errors
    /// No thread could be made: they live beside everything else.
    pub fn start(&mut self) -> io::Result<()> {
        self.thread = Some(Thread::start()?);
        Ok(())
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.thread {
            Some(thread) => self.tasks.spawn_on(task, &thread.handle),
            None => self.tasks.spawn(task),
        };
    }

    /// Goes on with what an earlier daemon of this boot knew, and keeps what is told and heard from now on.
    pub fn go_on(&mut self, run_dir: &Path) {
        (self.ledger, self.seen) = kept::load(run_dir);
        self.run_dir = Some(run_dir.to_owned());
        self.tell_migrations();
    }

    /// Writes down what was told and heard.
    pub fn keep(&self) {
        let saved = self.run_dir.as_ref().map(|dir| kept::save(dir, &self.ledger, &self.seen));
        if let Some(Err(error)) = saved {
            tracing::warn!("{error:#}");
        }
    }

    /// Connects and listens as this config says; what runs as it says already goes on. None: there are no peers.
    pub fn follow(&mut self, prepared: Option<Prepared>) {
        let same = |one: &Prepared, other: &Prepared| one.config == other.config && one.files == other.files;
        match (&self.running, &prepared) {
            (None, None) => return,
            (Some(before), Some(now)) if same(before, now) => return,
            _ => {}
        }
        self.tasks = JoinSet::new();
        self.table.begin(prepared.as_ref().map(|prepared| &prepared.config));
        if let Some(prepared) = &prepared {
            let own = Own {
                config: Arc::new(prepared.config.clone()),
                identity: prepared.identity.clone(),
                hello: Hello {
                    name: prepared.config.name.clone(),
                    instance: self.instance.clone(),
                    software: env!("CARGO_PKG_VERSION").to_owned(),
                },
                table: self.table.clone(),
                ears: self.ears.clone(),
            };
            for peer in &prepared.config.others {
                let told = self.told.subscribe();
                self.spawn(dial::run(own.clone(), peer.clone(), told));
            }
            let news = self.news.clone();
            self.spawn(listen::run(own, news));
        }
        self.running = prepared;
    }

    /// These VMs are here now. Whoever has to know is told.
    pub fn tell_vms(&self, mut vms: Vec<VmHere>) {
        vms.retain(|vm| vm.check().is_ok());
        vms.sort();
        vms.truncate(MOST_VMS);
        if *self.told.borrow().vms == vms {
            return;
        }
        while frame::encode(&Message::Vms { vms: vms.clone() }).is_err() {
            tracing::warn!("too many VMs to tell peers of all {}", vms.len());
            vms.truncate(vms.len() / 2);
        }
        self.told.send_modify(|told| told.vms = Arc::new(vms));
    }

    /// Asks every peer now whether it is there: [`Shared::heard_now`] tells who has answered.
    pub fn ask(&self) {
        self.told.send_modify(|told| told.asked += 1);
    }

    /// The ledger has changed. Whoever has to know is told.
    pub fn tell_migrations(&self) {
        let mut list = self.ledger.list();
        list.retain(|one| one.check().is_ok());
        while frame::encode(&Message::Migrations { migrations: list.clone() }).is_err() {
            // The oldest of those that are over, or else the oldest.
            list.remove(list.iter().position(Account::is_over).unwrap_or(0));
        }
        // Before it is kept: those who wait for it wait for packets.
        self.told.send_modify(|told| told.migrations = Arc::new(list));
        self.keep();
    }

    /// What a peer tells of migrations and has not told before. [`Peers::keep`] follows.
    pub fn unseen<'a>(&mut self, peer: &str, told: &'a [Account]) -> Vec<(&'a VmHere, &'a Step)> {
        self.seen.entry(peer.to_owned()).or_default().news(told)
    }
}
