//! What libvirt says of VMs: the bodies of its events and answers (libvirt's src/remote/remote_protocol.x; the
//! numbers of events, details and jobs are in include/libvirt/libvirt-domain.h).

use super::xdr::{Error, Reader, Writer};

/// `REMOTE_STRING_MAX` is 4 MiB; no name and no message that matters here is so long.
const TEXT: u32 = 64 << 10;
/// `REMOTE_DOMAIN_JOB_STATS_MAX`, with room for what later versions add.
const PARAMS: u32 = 1024;
/// `REMOTE_DOMAIN_LIST_MAX`.
const DOMAINS: u32 = 16_384;
/// `VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN` and `.._OUT`.
const MIGRATION_IN: i32 = 4;
const MIGRATION_OUT: i32 = 5;

/// `REMOTE_PROC_DOMAIN_EVENT_CALLBACK_*`: the events lbx registers for.
const LIFECYCLE: i32 = 318;
const MIGRATION_ITERATION: i32 = 359;
const JOB_COMPLETED: i32 = 363;

/// What to register for: `VIR_DOMAIN_EVENT_ID_LIFECYCLE`, `.._MIGRATION_ITERATION`, `.._JOB_COMPLETED`.
pub const EVENTS: [i32; 3] = [0, 20, 22];

/// A VM: what libvirt calls a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its number while it runs; -1 otherwise.
    pub id: i32,
}

/// Which of several reasons something happened for: libvirt's details, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is being, or was, migrated.
    Migrated,
    /// Migrated, and what is left of its memory follows.
    Postcopy,
    /// That failed on the way.
    PostcopyFailed,
    /// It could not be started, or what it was to be was not sent.
    Failed,
    /// Anything else, by libvirt's number.
    Other(i32),
}

/// What happened in the life of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its process started.
    Started(Why),
    /// Its CPUs stand still.
    Suspended(Why),
    /// They run again.
    Resumed(Why),
    /// Its process ended.
    Stopped(Why),
    /// Anything else, by libvirt's number.
    Other(i32),
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The VM comes from another host.
    MigrationIn,
    /// The VM goes to another host.
    MigrationOut,
    /// Saving, dumping, snapshots, ...; also what libvirt does not say.
    Other,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something happened to a VM.
    Lifecycle(Domain, Change),
    /// Its memory is sent, for the first or another time: to another host, or into a file.
    Iteration(Domain, i32),
    /// A job on it is completed: what for, and whether it went well.
    Job(Domain, Operation, bool),
}

impl Notice {
    /// The VM.
    pub const fn domain(&self) -> &Domain {
        match self {
            Self::Lifecycle(domain, _) | Self::Iteration(domain, _) | Self::Job(domain, ..) => domain,
        }
    }
}

impl Domain {
    /// Its UUID as text, in lower case.
    pub fn uuid_text(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let id = &self.uuid;
        let parts = [hex(&id[..4]), hex(&id[4..6]), hex(&id[6..8]), hex(&id[8..10]), hex(&id[10..])];
        format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", parts[0], parts[1], parts[2], parts[3], parts[4])
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let name = reader.string(TEXT)?.to_owned();
        Ok(Self { name, uuid: reader.opaque()?, id: reader.i32()? })
    }

    /// As an argument of a call.
    pub fn write(&self, into: Writer) -> Writer {
        into.string(&self.name).opaque(&self.uuid).i32(self.id)
    }
}

/// The event in a message of that procedure; `None` if it is none of those lbx registers for.
///
/// # Errors
/// The body is not what the protocol says.
pub fn event(procedure: i32, body: &[u8]) -> Result<Option<Notice>, Error> {
    if ![LIFECYCLE, MIGRATION_ITERATION, JOB_COMPLETED].contains(&procedure) {
        return Ok(None);
    }
    let mut reader = Reader::new(body);
    let _callback = reader.i32()?;
    let domain = Domain::read(&mut reader)?;
    Ok(Some(match procedure {
        LIFECYCLE => Notice::Lifecycle(domain, change(reader.i32()?, reader.i32()?)),
        MIGRATION_ITERATION => Notice::Iteration(domain, reader.i32()?),
        _ => {
            let (operation, well) = params(&mut reader)?;
            Notice::Job(domain, operation, well)
        }
    }))
}

/// `virDomainEventType` with the details of each.
const fn change(event: i32, detail: i32) -> Change {
    match (event, detail) {
        (2, 1) => Change::Started(Why::Migrated),
        (2, other) => Change::Started(Why::Other(other)),
        (3, 1) => Change::Suspended(Why::Migrated),
        (3, 7) => Change::Suspended(Why::Postcopy),
        (3, 8) => Change::Suspended(Why::PostcopyFailed),
        (3, other) => Change::Suspended(Why::Other(other)),
        (4, 1) => Change::Resumed(Why::Migrated),
        (4, 3) => Change::Resumed(Why::Postcopy),
        (4, 4) => Change::Resumed(Why::PostcopyFailed),
        (4, other) => Change::Resumed(Why::Other(other)),
        (5, 3) => Change::Stopped(Why::Migrated),
        (5, 5) => Change::Stopped(Why::Failed),
        (5, other) => Change::Stopped(Why::Other(other)),
        (other, _) => Change::Other(other),
    }
}

/// A value of a typed parameter, as far as it matters.
enum Value<'a> {
    Int(i32),
    Text(&'a str),
    Else,
}

/// What a job is for, and whether it went well: it did unless something says that it did not.
fn params(reader: &mut Reader<'_>) -> Result<(Operation, bool), Error> {
    let (mut operation, mut well) = (Operation::Other, true);
    for _ in 0..reader.count(PARAMS)? {
        let name = reader.string(TEXT)?;
        match (name, value(reader)?) {
            ("operation", Value::Int(MIGRATION_IN)) => operation = Operation::MigrationIn,
            ("operation", Value::Int(MIGRATION_OUT)) => operation = Operation::MigrationOut,
            ("success", Value::Int(0)) => well = false,
            ("errmsg", Value::Text(text)) if !text.is_empty() => well = false,
            _ => {}
        }
    }
    Ok((operation, well))
}

/// `remote_typed_param_value`, a union by `virTypedParameterType`.
fn value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, Error> {
    Ok(match reader.i32()? {
        // int, unsigned int, boolean
        1 | 2 | 6 => Value::Int(reader.i32()?),
        // long long, unsigned long long, double
        3..=5 => {
            reader.u64()?;
            Value::Else
        }
        7 => Value::Text(reader.string(TEXT)?),
        other => return Err(Error::Choice(other)),
    })
}

/// The job that a VM is in: `None` if there is none. The answer to `DOMAIN_GET_JOB_STATS`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn job(body: &[u8]) -> Result<Option<Operation>, Error> {
    let mut reader = Reader::new(body);
    // `virDomainJobType`: none, bounded, unbounded, completed, failed, cancelled.
    let kind = reader.i32()?;
    let (operation, _) = params(&mut reader)?;
    Ok(matches!(kind, 1 | 2).then_some(operation))
}

/// Whether a VM's CPUs run. The answer to `DOMAIN_GET_STATE`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn runs(body: &[u8]) -> Result<bool, Error> {
    // `VIR_DOMAIN_RUNNING`; a blocked one runs too, as far as its network goes.
    Ok(matches!(Reader::new(body).i32()?, 1 | 2))
}

/// The VMs there are. The answer to `CONNECT_LIST_ALL_DOMAINS`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn domains(body: &[u8]) -> Result<Vec<Domain>, Error> {
    let mut reader = Reader::new(body);
    (0..reader.count(DOMAINS)?).map(|_| Domain::read(&mut reader)).collect()
}

/// The ways to authenticate, by `remote_auth_type`. The answer to `AUTH_LIST`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn ways(body: &[u8]) -> Result<Vec<i32>, Error> {
    let mut reader = Reader::new(body);
    (0..reader.count(20)?).map(|_| reader.i32()).collect()
}

/// libvirt's version as text. The answer to `CONNECT_GET_LIB_VERSION`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn version(body: &[u8]) -> Result<String, Error> {
    let number = Reader::new(body).u64()?;
    Ok(format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000))
}

/// Why a call was refused: libvirt's number (`virErrorNumber`) and its words. The start of `virNetMessageError`.
///
/// # Errors
/// The body is not what the protocol says.
pub fn refusal(body: &[u8]) -> Result<(i32, String), Error> {
    let mut reader = Reader::new(body);
    let (code, _domain) = (reader.i32()?, reader.i32()?);
    let text = if reader.is_there()? { reader.string(TEXT)?.to_owned() } else { String::new() };
    Ok((code, text))
}

#[cfg(test)]
#[path = "notice_tests.rs"]
mod tests;
