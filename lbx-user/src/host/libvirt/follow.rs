//! From what libvirt says to events of migrations. Pure: time comes in as an argument.
//!
//! libvirt does not say everything. Nothing tells the source that a migration begins before its first pass over the
//! memory; the same passes are told when a VM is saved or dumped; and a migration that is given up before the VM was
//! stopped ends in silence. So what a VM is busy with is asked for, once at the first pass and again and again while
//! it is migrated away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lbx_common::migration::{Place, What};

use super::notice::{Change, Domain, Notice, Operation, Why};

/// An answer that takes longer is not waited for: what looks like a migration is one.
const PATIENCE: Duration = Duration::from_millis(200);
/// Time from one question to the next while a VM is migrated away.
const EVERY: Duration = Duration::from_millis(250);
/// How often in a row a VM is to be found idle before its migration counts as given up: the events of one that ends
/// well may come a moment after the answer.
const IDLE: u8 = 2;

/// What is to be done about a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Tell of it.
    Tell(Domain, What),
    /// Ask which job it is in.
    AskJob(Domain),
    /// Ask whether its CPUs run.
    AskState(Domain),
}

/// What a VM of this libvirt is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Its memory is sent somewhere, or it was there when we came: what for was asked then.
    Unknown { since: Instant, passes: bool },
    /// It goes to another host.
    Out { asked: Instant, waiting: bool, idle: u8, stopped: bool },
    /// It comes from another host.
    In,
    /// It is saved or dumped.
    Busy,
}

impl Doing {
    /// Migrated away, and found busy with it now.
    const fn out(now: Instant, stopped: bool) -> Self {
        Self::Out { asked: now, waiting: false, idle: 0, stopped }
    }
}

/// What all VMs of one libvirt are doing, as far as it matters.
#[derive(Debug, Default)]
pub struct Follower {
    vms: BTreeMap<[u8; 16], (Domain, Doing)>,
}

impl Follower {
    /// After every connection: the VMs that run. What is known from before is looked at again.
    pub fn connected(&mut self, running: &[Domain], now: Instant) -> Vec<Do> {
        let gone: Vec<[u8; 16]> =
            self.vms.keys().filter(|uuid| running.iter().all(|one| one.uuid != **uuid)).copied().collect();
        let mut work = Vec::new();
        for uuid in gone {
            // Who was sent away may have arrived or not: others know. Who was awaited here did not come.
            if let Some((domain, Doing::In)) = self.vms.remove(&uuid) {
                work.push(Do::Tell(domain, What::Failed));
            }
        }
        for domain in running {
            match self.vms.get_mut(&domain.uuid) {
                Some((_, Doing::In)) => work.push(Do::AskState(domain.clone())),
                // The answer to the last question was lost with the connection.
                Some((_, Doing::Out { waiting, .. })) => *waiting = false,
                _ => {
                    let doing = Doing::Unknown { since: now, passes: false };
                    self.vms.insert(domain.uuid, (domain.clone(), doing));
                    work.push(Do::AskJob(domain.clone()));
                }
            }
        }
        work
    }

    /// libvirt said something.
    pub fn notice(&mut self, notice: &Notice, now: Instant) -> Vec<Do> {
        let domain = notice.domain();
        let doing = self.vms.get(&domain.uuid).map(|(_, doing)| *doing);
        let tell = |list: &[What]| list.iter().map(|what| Do::Tell(domain.clone(), *what)).collect();
        match *notice {
            Notice::Iteration(..) => match doing {
                // What was left is told of after the stop: not that it runs again.
                Some(Doing::Out { stopped, .. }) if stopped => Vec::new(),
                Some(Doing::Out { .. }) => tell(&[What::Transferring]),
                Some(Doing::In | Doing::Busy | Doing::Unknown { passes: true, .. }) => Vec::new(),
                None | Some(Doing::Unknown { .. }) => {
                    self.set(domain, Doing::Unknown { since: now, passes: true });
                    vec![Do::AskJob(domain.clone())]
                }
            },
            Notice::Job(_, operation, well) => match (operation, doing) {
                // Told when the other side has said that the VM runs there; that its process ended follows.
                (Operation::MigrationOut, _) if well => {
                    self.forget(domain);
                    tell(&[What::Resumed(Place::There)])
                }
                (Operation::MigrationOut, _) => {
                    self.forget(domain);
                    tell(&[What::Failed])
                }
                (Operation::Other, Some(Doing::Busy | Doing::Unknown { .. })) => {
                    self.forget(domain);
                    Vec::new()
                }
                _ => Vec::new(),
            },
            Notice::Lifecycle(_, change) => match change {
                Change::Started(Why::Migrated) => {
                    self.set(domain, Doing::In);
                    tell(&[What::Expected])
                }
                Change::Suspended(why) => match (doing, why) {
                    (Some(Doing::In), Why::PostcopyFailed) => tell(&[What::Stopped]),
                    // It was to arrive suspended, and has.
                    (Some(Doing::In), Why::Other(_)) => {
                        self.forget(domain);
                        tell(&[What::Done(Place::Here)])
                    }
                    (Some(Doing::In), _) => Vec::new(),
                    (_, Why::Migrated | Why::Postcopy) => {
                        self.set(domain, Doing::out(now, true));
                        tell(&[What::Stopped])
                    }
                    // Paused by somebody, or for a snapshot: no migration.
                    _ => Vec::new(),
                },
                Change::Resumed(why) => match (doing, why) {
                    (Some(Doing::Out { .. }), Why::Migrated) => {
                        self.forget(domain);
                        tell(&[What::Failed])
                    }
                    (_, Why::Migrated) => {
                        self.forget(domain);
                        tell(&[What::Resumed(Place::Here), What::Done(Place::Here)])
                    }
                    (Some(Doing::In), Why::Postcopy | Why::PostcopyFailed) => {
                        tell(&[What::Resumed(Place::Here)])
                    }
                    _ => Vec::new(),
                },
                Change::Stopped(why) => {
                    self.forget(domain);
                    match (doing, why) {
                        (_, Why::Migrated) => tell(&[What::Done(Place::There)]),
                        (Some(Doing::In | Doing::Out { .. }), _) => tell(&[What::Failed]),
                        _ => Vec::new(),
                    }
                }
                Change::Started(_) => {
                    self.forget(domain);
                    Vec::new()
                }
                Change::Other(_) => Vec::new(),
            },
        }
    }

    /// The answer to [`Do::AskJob`]: the job the VM is in.
    pub fn job(&mut self, domain: &Domain, job: Option<Operation>, now: Instant) -> Vec<Do> {
        let Some((_, doing)) = self.vms.get_mut(&domain.uuid) else { return Vec::new() };
        match (*doing, job) {
            (Doing::Unknown { .. }, Some(Operation::MigrationOut)) => {
                *doing = Doing::out(now, false);
                vec![Do::Tell(domain.clone(), What::Transferring)]
            }
            (Doing::Unknown { .. }, Some(Operation::MigrationIn)) => {
                *doing = Doing::In;
                vec![Do::Tell(domain.clone(), What::Expected)]
            }
            (Doing::Unknown { passes: true, .. }, Some(Operation::Other)) => {
                *doing = Doing::Busy;
                Vec::new()
            }
            (Doing::Unknown { .. }, _) => {
                self.forget(domain);
                Vec::new()
            }
            (Doing::Out { stopped, .. }, Some(Operation::MigrationOut)) => {
                *doing = Doing::out(now, stopped);
                Vec::new()
            }
            (Doing::Out { idle, stopped, .. }, _) if idle + 1 < IDLE => {
                *doing = Doing::Out { asked: now, waiting: false, idle: idle + 1, stopped };
                Vec::new()
            }
            // It is here, and not being migrated.
            (Doing::Out { .. }, _) => {
                self.forget(domain);
                vec![Do::Tell(domain.clone(), What::Failed)]
            }
            (Doing::In | Doing::Busy, _) => Vec::new(),
        }
    }

    /// libvirt would not say: the VM is gone, or for another reason.
    pub fn refused(&mut self, domain: &Domain, gone: bool, now: Instant) -> Vec<Do> {
        let Some((_, doing)) = self.vms.get_mut(&domain.uuid) else { return Vec::new() };
        match *doing {
            Doing::Unknown { passes: true, .. } if !gone => {
                *doing = Doing::out(now, false);
                vec![Do::Tell(domain.clone(), What::Transferring)]
            }
            Doing::Unknown { .. } => {
                self.forget(domain);
                Vec::new()
            }
            // If it left, its end is told by an event; if nothing can be known, the watchdog finds out.
            Doing::Out { idle, stopped, .. } => {
                *doing = Doing::Out { asked: now, waiting: false, idle, stopped };
                Vec::new()
            }
            Doing::In | Doing::Busy => Vec::new(),
        }
    }

    /// The answer to [`Do::AskState`]: whether the VM's CPUs run.
    pub fn state(&mut self, domain: &Domain, runs: bool) -> Vec<Do> {
        match self.vms.get(&domain.uuid) {
            Some((_, Doing::In)) if runs => {
                self.forget(domain);
                [What::Resumed(Place::Here), What::Done(Place::Here)]
                    .map(|what| Do::Tell(domain.clone(), what))
                    .to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Time went by: what is to be asked now, and what is not waited for any longer.
    pub fn tick(&mut self, now: Instant) -> Vec<Do> {
        let mut work = Vec::new();
        for (domain, doing) in self.vms.values_mut() {
            match *doing {
                Doing::Unknown { since, passes: true } if now.duration_since(since) >= PATIENCE => {
                    *doing = Doing::Out { asked: now, waiting: true, idle: 0, stopped: false };
                    work.push(Do::Tell(domain.clone(), What::Transferring));
                }
                Doing::Out { asked, waiting: false, idle, stopped } if now.duration_since(asked) >= EVERY => {
                    *doing = Doing::Out { asked: now, waiting: true, idle, stopped };
                    work.push(Do::AskJob(domain.clone()));
                }
                _ => {}
            }
        }
        work
    }

    /// Whether [`Follower::tick`] has anything to wait for.
    pub fn is_busy(&self) -> bool {
        let waits = |doing: &Doing| matches!(doing, Doing::Unknown { passes: true, .. } | Doing::Out { .. });
        self.vms.values().any(|(_, doing)| waits(doing))
    }

    fn set(&mut self, domain: &Domain, doing: Doing) {
        self.vms.insert(domain.uuid, (domain.clone(), doing));
    }

    fn forget(&mut self, domain: &Domain) {
        self.vms.remove(&domain.uuid);
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
