//! Who answers ARP, neighbour solicitation and echo for a VIP (`answer = "probe"`).
//!
//! The datapath does the answering, when an address's flag says so; this decides when it says so: one
//! [`machine::Machine`] per VIP, fed from packet sockets, whose verdict goes to the daemon as an [`Answer`].

pub mod frame;
pub mod machine;
pub mod socket;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use lbx_common::addr::Mac;
use tokio::sync::mpsc;

use frame::Heard;
use machine::{Action, Machine, Phase};
use socket::{Scope, Sender, Socket};

/// One VIP on one VLAN of one switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The switch, by name.
    pub switch: String,
    /// VLAN as in the service's rules.
    pub vlan: u16,
    /// The address.
    pub addr: IpAddr,
}

/// Where and how to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What about.
    pub key: Key,
    /// The MAC that the answers name.
    pub mac: Mac,
    /// Tag on the frames, 0 without.
    pub tag: u16,
    /// Interfaces to ask on: the switch itself, or for tagged frames its uplinks.
    pub ifindexes: Vec<u32>,
    /// Interfaces to ask on past this host's own datapath: what is sent there leaves, and is not answered by it.
    pub ports: Vec<u32>,
    /// The maps say that this host answers already.
    pub answering: bool,
}

/// News about a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub key: Key,
    /// Where it stands.
    pub phase: Phase,
}

/// Runs until `asks` is closed. Each message replaces the whole list.
pub async fn run(mut asks: mpsc::Receiver<Vec<Ask>>, news: mpsc::Sender<Answer>) {
    let mut watch = Watch::default();
    loop {
        let now = Instant::now();
        let wake = watch.next_due().map_or(Duration::from_hours(1), |due| due.saturating_duration_since(now));
        tokio::select! {
            list = asks.recv() => match list {
                Some(list) => watch.sync(list),
                None => return,
            },
            heard = watch.heard() => match heard {
                Ok(heard) => watch.take(&heard),
                Err((at, error)) => {
                    tracing::debug!("cannot listen on interface {}: {error}", at.0);
                    watch.sockets.remove(&at);
                    // A link that goes down and up again: try the socket anew, but not at full speed.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
            () = tokio::time::sleep(wake) => watch.tick(),
        }
        for answer in watch.changes() {
            if news.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// All addresses together are checked at most this often.
const CHECK_SPACE: Duration = Duration::from_millis(50);

/// A number of its own for every address.
fn seed(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[derive(Default)]
struct Watch {
    machines: BTreeMap<Key, Watched>,
    sockets: BTreeMap<(u32, Scope), Socket>,
    sender: Option<Sender>,
}

struct Watched {
    ask: Ask,
    machine: Machine,
    told: Option<Phase>,
}

impl Watch {
    fn sync(&mut self, list: Vec<Ask>) {
        let now = Instant::now();
        self.machines.retain(|key, _| list.iter().any(|ask| ask.key == *key));
        for ask in list {
            if let Some(known) = self.machines.get_mut(&ask.key) {
                if known.ask.mac != ask.mac {
                    known.machine.restart(ask.mac, now);
                }
                known.ask = ask;
            } else {
                let machine = Machine::new(ask.mac, ask.answering, seed(&ask.key), now);
                self.machines.insert(ask.key.clone(), Watched { ask, machine, told: None });
            }
        }
        let gap = machine::CHECK_GAP.max(CHECK_SPACE * self.machines.len() as u32);
        self.machines.values_mut().for_each(|watched| watched.machine.set_gap(gap));
        self.open();
    }

    fn wanted(&self) -> Vec<(u32, Scope)> {
        let mut all = Vec::new();
        for watched in self.machines.values() {
            let scope = match (watched.ask.tag, watched.ask.key.addr) {
                (0, IpAddr::V4(_)) => Scope::Arp,
                (0, IpAddr::V6(_)) => Scope::Ipv6,
                _ => Scope::All,
            };
            all.extend(watched.ask.ifindexes.iter().map(|ifindex| (*ifindex, scope)));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    fn open(&mut self) {
        if self.sender.is_none() && !self.machines.is_empty() {
            match Sender::open() {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => tracing::warn!("cannot ask for VIPs: {error}"),
            }
        }
        let wanted = self.wanted();
        self.sockets.retain(|at, _| wanted.contains(at));
        for at in wanted {
            let Entry::Vacant(place) = self.sockets.entry(at) else { continue };
            match Socket::open(at.0, at.1) {
                Ok(socket) => drop(place.insert(socket)),
                Err(error) => tracing::warn!("cannot listen for VIPs on interface {}: {error}", at.0),
            }
        }
    }

    async fn heard(&self) -> Result<Heard, ((u32, Scope), std::io::Error)> {
        let mut waiting: Vec<_> = self
            .sockets
            .iter()
            .map(|(at, socket)| Box::pin(async move { socket.heard().await.map_err(|error| (*at, error)) }))
            .collect();
        let mut any = pin!(poll_fn(move |context| {
            for future in &mut waiting {
                if let Poll::Ready(result) = future.as_mut().poll(context) {
                    return Poll::Ready(result);
                }
            }
            Poll::Pending
        }));
        any.as_mut().await
    }

    fn take(&mut self, heard: &Heard) {
        let now = Instant::now();
        let mut send = Vec::new();
        for (key, watched) in &mut self.machines {
            if key.addr == heard.addr && watched.ask.tag == heard.vlan {
                let action = watched.machine.heard(heard.mac, heard.said, now);
                send.extend(action.map(|action| (key.clone(), action)));
            }
        }
        self.send(&send);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let mut send = Vec::new();
        for (key, watched) in &mut self.machines {
            send.extend(watched.machine.tick(now).map(|action| (key.clone(), action)));
        }
        self.open();
        self.send(&send);
    }

    fn send(&self, actions: &[(Key, Action)]) {
        for (key, action) in actions {
            let Some(watched) = self.machines.get(key) else { continue };
            let frame = match action {
                Action::Check => {
                    let frame = frame::probe(key.addr, watched.ask.mac, watched.ask.tag);
                    self.check(&watched.ask, &frame);
                    continue;
                }
                Action::Probe => frame::probe(key.addr, watched.ask.mac, watched.ask.tag),
                Action::Announce => frame::announcement(key.addr, watched.ask.mac, watched.ask.tag),
            };
            for ifindex in &watched.ask.ifindexes {
                let socket = self.sockets.iter().find(|((at, _), _)| at == ifindex).map(|(_, socket)| socket);
                if let Some(Err(error)) = socket.map(|socket| socket.send(&frame)) {
                    tracing::debug!("{}: cannot send on interface {ifindex}: {error}", key.addr);
                }
            }
        }
    }

    /// Asks at the ports themselves: on the switch's device the datapath would see the question and answer it.
    fn check(&self, ask: &Ask, frame: &[u8]) {
        let Some(sender) = &self.sender else { return };
        for ifindex in &ask.ports {
            if let Err(error) = sender.send(*ifindex, frame) {
                tracing::debug!("{}: cannot ask on interface {ifindex}: {error}", ask.key.addr);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.machines.values().map(|watched| watched.machine.due()).min()
    }

    fn changes(&mut self) -> Vec<Answer> {
        let mut changed = Vec::new();
        for (key, watched) in &mut self.machines {
            let phase = watched.machine.phase();
            if watched.told != Some(phase) {
                watched.told = Some(phase);
                changed.push(Answer { key: key.clone(), phase });
            }
        }
        changed
    }
}
