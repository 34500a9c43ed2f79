//! A connection to a libvirt daemon: calls and their answers, and events as they come.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::notice::{self, Domain, Notice, Operation};
use super::wire::{self, Kind, Procedure};
use super::xdr::{self, Writer};

/// The longest wait for an answer while the connection is set up, and for room to send a call.
const PATIENCE: Duration = Duration::from_secs(5);
/// libvirt's name of the QEMU driver for all of a host's VMs.
const URI: &str = "qemu:///system";
/// `VIR_CONNECT_RO`.
const READ_ONLY: u32 = 1;
/// `REMOTE_AUTH_NONE`.
const NO_AUTH: i32 = 0;
/// `VIR_CONNECT_LIST_DOMAINS_ACTIVE`.
const ACTIVE: u32 = 1;
/// `VIR_ERR_NO_DOMAIN` and `VIR_ERR_OPERATION_INVALID`: it is not there, or does not run.
const GONE: [i32; 2] = [42, 55];

/// Why there is no connection any more, or none yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The daemon closed it.
    #[error("the daemon closed the connection")]
    Closed,
    /// It does not answer.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// What came is not libvirt's protocol.
    #[error("{0}")]
    Wire(#[from] wire::Error),
    /// A body is not what the protocol says.
    #[error("the answer or event {0} is not what the protocol says: {1}")]
    Body(i32, xdr::Error),
    /// The daemon refused a call.
    #[error("refused: {0}")]
    Refused(String),
    /// lbx is to prove who it is.
    #[error("it asks for authentication, which root on the same host need not: run lbx as root")]
    Auth,
}

/// The answer to a question about a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The job it is in.
    Job(Option<Operation>),
    /// Whether its CPUs run.
    Runs(bool),
    /// It is not there (any more).
    Gone,
    /// libvirt would not say, and why.
    Unknown(String),
}

/// What comes from the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Something happened to a VM.
    Notice(Notice),
    /// What was asked about a VM.
    Answer(Domain, Answer),
    /// It is still there.
    Alive,
}

/// A connection that is set up: events come.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    serial: u32,
    received: Vec<u8>,
    /// Events that came while an answer was waited for.
    early: VecDeque<Notice>,
    /// Questions by serial; `None`: whether it is still there.
    asked: BTreeMap<u32, (Procedure, Option<Domain>)>,
    /// libvirt's version.
    pub version: String,
    /// The VMs that run, as of when the connection was set up: events came before they were listed.
    pub running: Vec<Domain>,
}

impl Session {
    /// Connects, registers for events, and lists the VMs that run.
    ///
    /// # Errors
    /// There is no daemon, it does not speak the protocol, or it refuses.
    pub async fn open(socket: &Path) -> Result<Self, Error> {
        let stream = timeout(PATIENCE, UnixStream::connect(socket)).await.map_err(|_| Error::Silent)??;
        let mut session = Self {
            stream,
            serial: 0,
            received: Vec::new(),
            early: VecDeque::new(),
            asked: BTreeMap::new(),
            version: String::new(),
            running: Vec::new(),
        };
        let ways = session.call(Procedure::AuthList, &[], notice::ways).await?;
        if !ways.is_empty() && !ways.contains(&NO_AUTH) {
            return Err(Error::Auth);
        }
        let open = Writer::default().u32(1).string(URI).u32(READ_ONLY).done();
        session.call(Procedure::Open, &open, |_| Ok(())).await?;
        session.version = session.call(Procedure::LibVersion, &[], notice::version).await?;
        for event in notice::EVENTS {
            // Of every VM: none is named.
            let which = Writer::default().i32(event).u32(0).done();
            session.call(Procedure::Register, &which, |_| Ok(())).await?;
        }
        let active = Writer::default().i32(1).u32(ACTIVE).done();
        session.running = session.call(Procedure::ListDomains, &active, notice::domains).await?;
        Ok(session)
    }

    /// Calls and waits for the answer.
    async fn call<T>(
        &mut self,
        procedure: Procedure,
        body: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, xdr::Error>,
    ) -> Result<T, Error> {
        let serial = self.send(procedure, body).await?;
        let answer = async {
            loop {
                let frame = self.frame().await?;
                match wire::decode(&frame)? {
                    (Kind::Answer(of), body) if of == serial => {
                        return read(body).map_err(|error| Error::Body(procedure as i32, error));
                    }
                    (Kind::Refused(of), body) if of == serial => {
                        let (_, text) =
                            notice::refusal(body).map_err(|error| Error::Body(procedure as i32, error))?;
                        return Err(Error::Refused(text));
                    }
                    (kind, body) => {
                        let notice = self.take(kind, body).await?;
                        self.early.extend(notice);
                    }
                }
            }
        };
        timeout(PATIENCE, answer).await.map_err(|_| Error::Silent)?
    }

    /// Asks which job a VM is in; the answer comes by [`Session::next`].
    ///
    /// # Errors
    /// The connection ended, or nothing is taken from it any more.
    pub async fn ask_job(&mut self, domain: &Domain) -> Result<(), Error> {
        // Not of the last job that is over, but of the one there is.
        let body = domain.write(Writer::default()).u32(0).done();
        self.ask(Procedure::JobStats, &body, Some(domain)).await
    }

    /// Asks whether a VM's CPUs run; the answer comes by [`Session::next`].
    ///
    /// # Errors
    /// The connection ended, or nothing is taken from it any more.
    pub async fn ask_state(&mut self, domain: &Domain) -> Result<(), Error> {
        let body = domain.write(Writer::default()).u32(0).done();
        self.ask(Procedure::State, &body, Some(domain)).await
    }

    /// Asks whether the daemon is still there; [`Incoming::Alive`] comes by [`Session::next`].
    ///
    /// # Errors
    /// The connection ended, or nothing is taken from it any more.
    pub async fn ask_alive(&mut self) -> Result<(), Error> {
        self.ask(Procedure::LibVersion, &[], None).await
    }

    async fn ask(&mut self, what: Procedure, body: &[u8], domain: Option<&Domain>) -> Result<(), Error> {
        let serial = self.send(what, body).await?;
        self.asked.insert(serial, (what, domain.cloned()));
        Ok(())
    }

    /// What comes next. May be cancelled and called again.
    ///
    /// # Errors
    /// The connection ended, or what came is not the protocol: it cannot be used any more.
    pub async fn next(&mut self) -> Result<Incoming, Error> {
        loop {
            if let Some(notice) = self.early.pop_front() {
                return Ok(Incoming::Notice(notice));
            }
            let frame = self.frame().await?;
            let (kind, body) = wire::decode(&frame)?;
            let serial = match kind {
                Kind::Answer(serial) | Kind::Refused(serial) => serial,
                other => {
                    let notice = self.take(other, body).await?;
                    self.early.extend(notice);
                    continue;
                }
            };
            let Some((procedure, domain)) = self.asked.remove(&serial) else { continue };
            let Some(domain) = domain else { return Ok(Incoming::Alive) };
            let answer = match (kind, procedure) {
                (Kind::Refused(_), _) => notice::refusal(body).map(|(code, text)| match code {
                    code if GONE.contains(&code) => Answer::Gone,
                    _ => Answer::Unknown(text),
                }),
                (_, Procedure::State) => notice::runs(body).map(Answer::Runs),
                _ => notice::job(body).map(Answer::Job),
            };
            let answer = answer.map_err(|error| Error::Body(procedure as i32, error))?;
            return Ok(Incoming::Answer(domain, answer));
        }
    }

    /// A message that is no answer: the event in it, if it is one.
    async fn take(&mut self, kind: Kind, body: &[u8]) -> Result<Option<Notice>, Error> {
        match kind {
            Kind::Event(procedure) => {
                notice::event(procedure, body).map_err(|error| Error::Body(procedure, error))
            }
            Kind::Ping => self.write(&wire::pong()).await.map(|()| None),
            Kind::Answer(_) | Kind::Refused(_) | Kind::Other => Ok(None),
        }
    }

    /// The next whole frame. What was received of one is kept if this is cancelled.
    async fn frame(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(first) = self.received.first_chunk::<4>() {
                let length = wire::length(*first)?;
                if self.received.len() >= length {
                    let rest = self.received.split_off(length);
                    return Ok(std::mem::replace(&mut self.received, rest));
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    async fn send(&mut self, procedure: Procedure, body: &[u8]) -> Result<u32, Error> {
        self.serial = self.serial.wrapping_add(1);
        let frame = wire::call(procedure, self.serial, body);
        self.write(&frame).await?;
        Ok(self.serial)
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), Error> {
        Ok(timeout(PATIENCE, self.stream.write_all(frame)).await.map_err(|_| Error::Silent)??)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
