//! Frames: a length, a header of six words, a body (libvirt's src/rpc/virnetprotocol.x).

use super::xdr::{self, Reader, Writer};

/// Bytes of the length and the header.
pub const HEADER: usize = 28;
/// The largest frame that is taken. Events have hundreds of bytes; the longest answer, the list of all VMs, has
/// some hundred bytes for each. libvirt itself stops at 32 MiB.
pub const LONGEST: usize = 4 << 20;

/// `REMOTE_PROGRAM`, version 1: everything about VMs.
const REMOTE: u32 = 0x2000_8086;
/// `KEEPALIVE_PROGRAM`, version 1: whether the other side is still there.
const KEEPALIVE: u32 = 0x6b65_6570;
const VERSION: u32 = 1;
/// `KEEPALIVE_PROC_PING` and `KEEPALIVE_PROC_PONG`.
const PING: i32 = 1;
const PONG: i32 = 2;

/// What lbx asks of libvirt: `REMOTE_PROC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Procedure {
    /// `CONNECT_OPEN`.
    Open = 1,
    /// `AUTH_LIST`.
    AuthList = 66,
    /// `CONNECT_GET_LIB_VERSION`.
    LibVersion = 157,
    /// `DOMAIN_GET_STATE`.
    State = 212,
    /// `CONNECT_LIST_ALL_DOMAINS`.
    ListDomains = 273,
    /// `DOMAIN_GET_JOB_STATS`.
    JobStats = 298,
    /// `CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY`.
    Register = 316,
}

/// Why a frame is refused. The connection cannot go on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too short for a header.
    #[error("a frame of {0} bytes, fewer than its own header has: this is not libvirt's protocol")]
    Short(u32),
    /// Longer than lbx takes.
    #[error("a frame of {0} bytes, more than the {LONGEST} that lbx takes")]
    Long(u32),
    /// The header means nothing.
    #[error("a frame whose header is not libvirt's: {0}")]
    Header(xdr::Error),
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer to a call, by its serial: done.
    Answer(u32),
    /// The answer to a call, by its serial: refused.
    Refused(u32),
    /// Something happened: the procedure says what.
    Event(i32),
    /// Whether we are still there.
    Ping,
    /// Nothing that lbx asked for.
    Other,
}

/// The length of a whole frame, out of its first four bytes.
///
/// # Errors
/// Too short or too long.
pub fn length(first: [u8; 4]) -> Result<usize, Error> {
    let length = u32::from_be_bytes(first);
    match length as usize {
        short if short < HEADER => Err(Error::Short(length)),
        long if long > LONGEST => Err(Error::Long(length)),
        fits => Ok(fits),
    }
}

/// What a whole frame is, and its body.
///
/// # Errors
/// Its header means nothing.
pub fn decode(frame: &[u8]) -> Result<(Kind, &[u8]), Error> {
    let mut reader = Reader::new(frame);
    let kind = header(&mut reader).map_err(Error::Header)?;
    Ok((kind, reader.rest()))
}

fn header(reader: &mut Reader<'_>) -> Result<Kind, xdr::Error> {
    let _length = reader.u32()?;
    let (program, version, procedure) = (reader.u32()?, reader.u32()?, reader.i32()?);
    // `virNetMessageType`: call, reply, message, ...; `virNetMessageStatus`: ok, error, continue.
    let (class, serial, status) = (reader.i32()?, reader.u32()?, reader.i32()?);
    Ok(match (program, version, class, status) {
        (REMOTE, VERSION, 1, 0) => Kind::Answer(serial),
        (REMOTE, VERSION, 1, 1) => Kind::Refused(serial),
        (REMOTE, VERSION, 2, 0) => Kind::Event(procedure),
        (KEEPALIVE, VERSION, 2, _) if procedure == PING => Kind::Ping,
        (_, _, 0..=6, 0..=2) => Kind::Other,
        (_, _, 0..=6, other) | (_, _, other, _) => return Err(xdr::Error::Choice(other)),
    })
}

/// The frame of a call.
pub fn call(procedure: Procedure, serial: u32, body: &[u8]) -> Vec<u8> {
    frame(REMOTE, procedure as i32, 0, serial, body)
}

/// The answer to a ping.
pub fn pong() -> Vec<u8> {
    frame(KEEPALIVE, PONG, 2, 0, &[])
}

fn frame(program: u32, procedure: i32, class: i32, serial: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let header = Writer::default().u32(length).u32(program).u32(VERSION).i32(procedure).i32(class);
    header.u32(serial).i32(0).opaque(body).done()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_word_by_word() {
        let frame = call(Procedure::Register, 5, &[0, 0, 0, 20, 0, 0, 0, 0]);
        let words: Vec<u32> =
            frame.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [36, 0x2000_8086, 1, 316, 0, 5, 0, 20, 0]);
        assert_eq!(length(frame[..4].try_into().unwrap()), Ok(36));
        // A call is not what a daemon sends.
        assert_eq!(decode(&frame), Ok((Kind::Other, &frame[HEADER..])));
        assert_eq!(pong()[..16], *b"\0\0\0\x1ckeep\0\0\0\x01\0\0\0\x02");
    }

    #[test]
    fn what_a_daemon_sends() {
        let sent = |program, procedure, class, status| {
            let header = Writer::default().u32(28).u32(program).u32(1).i32(procedure).i32(class);
            decode(&header.u32(9).i32(status).done()).map(|(kind, _)| kind)
        };
        assert_eq!(sent(REMOTE, 66, 1, 0), Ok(Kind::Answer(9)));
        assert_eq!(sent(REMOTE, 1, 1, 1), Ok(Kind::Refused(9)));
        assert_eq!(sent(REMOTE, 318, 2, 0), Ok(Kind::Event(318)));
        assert_eq!(sent(KEEPALIVE, 1, 2, 0), Ok(Kind::Ping));
        assert_eq!(sent(KEEPALIVE, 2, 2, 0), Ok(Kind::Other));
        assert_eq!(sent(REMOTE, 1, 3, 2), Ok(Kind::Other), "a stream");
        assert_eq!(sent(REMOTE, 1, 1, 3), Err(Error::Header(xdr::Error::Choice(3))));
        assert_eq!(sent(REMOTE, 1, 7, 0), Err(Error::Header(xdr::Error::Choice(7))));
    }

    #[test]
    fn frames_out_of_bounds_are_refused_with_a_reason() {
        assert_eq!(length(*b"\0\0\0\x1b"), Err(Error::Short(27)));
        assert_eq!(length((LONGEST as u32).to_be_bytes()), Ok(LONGEST));
        // What a web server says.
        let error = length(*b"HTTP").unwrap_err();
        assert!(error.to_string().contains("more than the 4194304"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            match decode(&bytes) {
                Ok((_, body)) => prop_assert_eq!(body.len(), bytes.len() - HEADER),
                Err(Error::Header(_)) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
