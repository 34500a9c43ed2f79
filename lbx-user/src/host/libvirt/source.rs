//! Connections to libvirt daemons that are kept: lost, they are tried again, and nobody waits for them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lbx_common::migration::{Event, Source, What};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::follow::{Do, Follower};
use super::notice::Domain;
use super::session::{Answer, Error, Incoming, Session};
use crate::migration::{Stream, VmId, now};

/// The first wait after a connection was lost or refused; it doubles up to the last.
const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(5);
/// A daemon that said nothing for so long is asked whether it is still there ...
const QUIET: Duration = Duration::from_secs(10);
/// ... and given up after so long.
const DEAD: Duration = Duration::from_secs(25);
/// How often it is looked whether a question is due while VMs are migrated.
const TICK: Duration = Duration::from_millis(50);

/// A connection that the config asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The sockets it may use: the first that answers.
    pub sockets: Vec<PathBuf>,
    /// The config names it, so that it ought to be there.
    pub configured: bool,
}

/// How a connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The socket; the first of several while none answers.
    pub socket: PathBuf,
    /// The config names it.
    pub configured: bool,
    /// libvirt's version while it is connected.
    pub version: Option<String>,
    /// Why it is not connected; nothing while there is no libvirt on this host and none is configured.
    pub error: Option<String>,
    /// How often it was connected.
    pub connects: u64,
    /// Events libvirt sent.
    pub notices: u64,
    /// Events of migrations that were told.
    pub told: u64,
}

type Shared = Arc<Mutex<Shown>>;

/// All connections. They end when this is dropped.
#[derive(Debug, Default)]
pub struct Sources {
    running: Vec<(Wanted, Shared, JoinHandle<()>)>,
}

impl Sources {
    /// Keeps exactly these connections from now on; what they hear goes into the stream. Those it has already go on
    /// undisturbed.
    pub fn follow(&mut self, wanted: Vec<Wanted>, stream: &Stream) {
        self.running.retain(|(has, _, task)| {
            let keep = wanted.contains(has);
            if !keep {
                task.abort();
            }
            keep
        });
        for one in wanted {
            if self.running.iter().any(|(has, ..)| *has == one) {
                continue;
            }
            let shown: Shared = Arc::new(Mutex::new(Shown {
                socket: one.sockets.first().cloned().unwrap_or_default(),
                configured: one.configured,
                version: None,
                error: None,
                connects: 0,
                notices: 0,
                told: 0,
            }));
            let task = tokio::spawn(keep(one.clone(), shown.clone(), stream.clone()));
            self.running.push((one, shown, task));
        }
    }

    /// How they are doing.
    pub fn shown(&self) -> Vec<Shown> {
        self.running.iter().map(|(_, shown, _)| lock(shown).clone()).collect()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        for (_, _, task) in &self.running {
            task.abort();
        }
    }
}

fn lock(shown: &Shared) -> std::sync::MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the first socket that answers. `Err(None)`: there is none, and none has to be.
///
/// # Errors
/// Why none does.
pub async fn open(wanted: &Wanted) -> Result<(&Path, Session), Option<(PathBuf, Error)>> {
    let mut failed: Option<(PathBuf, Error)> = None;
    for socket in &wanted.sockets {
        match Session::open(socket).await {
            Ok(session) => return Ok((socket, session)),
            Err(Error::Io(error)) if !wanted.configured && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => failed = failed.or(Some((socket.clone(), error))),
        }
    }
    Err(failed)
}

async fn keep(wanted: Wanted, shown: Shared, stream: Stream) {
    let mut follower = Follower::default();
    let mut wait = FIRST;
    loop {
        let error = match open(&wanted).await {
            Ok((socket, session)) => {
                {
                    let mut shown = lock(&shown);
                    socket.clone_into(&mut shown.socket);
                    shown.version = Some(session.version.clone());
                    shown.error = None;
                    shown.connects += 1;
                }
                tracing::info!("libvirt {} at {} is heard", session.version, socket.display());
                let since = Instant::now();
                let heard = Heard { follower: &mut follower, shown: &shown, stream: &stream };
                let error = heard.follow(session).await;
                if since.elapsed() > LAST {
                    wait = FIRST;
                }
                Some((socket.to_owned(), error))
            }
            Err(error) => error,
        };
        tell_lost(&shown, error);
        sleep(wait).await;
        wait = (wait * 2).min(LAST);
    }
}

/// Says that a connection is lost, once for as long as the reason is the same.
fn tell_lost(shown: &Shared, error: Option<(PathBuf, Error)>) {
    let mut shown = lock(shown);
    shown.version = None;
    let text = error.map(|(socket, error)| {
        shown.socket = socket;
        error.to_string()
    });
    if shown.error != text
        && let Some(text) = &text
    {
        tracing::warn!("libvirt at {} is not heard: {text}", shown.socket.display());
    }
    shown.error = text;
}

/// What is known while a connection lasts.
struct Heard<'a> {
    follower: &'a mut Follower,
    shown: &'a Shared,
    stream: &'a Stream,
}

impl Heard<'_> {
    /// Passes on what a session brings until it ends.
    async fn follow(mut self, mut session: Session) -> Error {
        match self.follow_on(&mut session).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow_on(&mut self, session: &mut Session) -> Result<std::convert::Infallible, Error> {
        let running = std::mem::take(&mut session.running);
        let work = self.follower.connected(&running, Instant::now());
        self.perform(session, work).await?;
        let (mut heard, mut asked) = (Instant::now(), false);
        loop {
            let pause = if self.follower.is_busy() { TICK } else { QUIET };
            let incoming = tokio::select! {
                incoming = session.next() => Some(incoming?),
                () = sleep(pause) => None,
            };
            let now = Instant::now();
            let work = match incoming {
                Some(incoming) => {
                    (heard, asked) = (now, false);
                    self.hear(incoming, now)
                }
                None => self.follower.tick(now),
            };
            self.perform(session, work).await?;
            let quiet = now.duration_since(heard);
            if quiet >= DEAD {
                return Err(Error::Silent);
            }
            if quiet >= QUIET && !asked {
                session.ask_alive().await?;
                asked = true;
            }
        }
    }

    fn hear(&mut self, incoming: Incoming, now: Instant) -> Vec<Do> {
        match incoming {
            Incoming::Alive => Vec::new(),
            Incoming::Notice(notice) => {
                lock(self.shown).notices += 1;
                tracing::debug!("libvirt says {notice:?}");
                self.follower.notice(&notice, now)
            }
            Incoming::Answer(domain, answer) => match answer {
                Answer::Job(job) => self.follower.job(&domain, job, now),
                Answer::Runs(runs) => self.follower.state(&domain, runs),
                Answer::Gone => self.follower.refused(&domain, true, now),
                Answer::Unknown(why) => {
                    tracing::warn!("libvirt does not say what {} is doing: {why}", domain.name);
                    self.follower.refused(&domain, false, now)
                }
            },
        }
    }

    async fn perform(&mut self, session: &mut Session, work: Vec<Do>) -> Result<(), Error> {
        // What is to be told does not wait for a question to be sent.
        for one in &work {
            if let Do::Tell(domain, what) = one {
                self.tell(domain, *what);
            }
        }
        for one in work {
            match one {
                Do::Tell(..) => {}
                Do::AskJob(domain) => session.ask_job(&domain).await?,
                Do::AskState(domain) => session.ask_state(&domain).await?,
            }
        }
        Ok(())
    }

    fn tell(&self, domain: &Domain, what: What) {
        lock(self.shown).told += 1;
        let vm = VmId { name: Some(domain.name.clone()), uuid: Some(domain.uuid_text()), ..VmId::default() };
        self.stream.tell(vm, Event::new(what, Source::Libvirt, now()));
    }
}
