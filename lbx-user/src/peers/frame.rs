//! Frames on the wire: one byte of version, three of length (big endian), then so many bytes of JSON.
//!
//! Decoding is a pure function of the bytes that came, so that it can be tried with arbitrary ones.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::Message;

/// Version of frames and messages. Within a version fields and kinds of messages are only added.
pub const VERSION: u8 = 1;
/// Largest message, in bytes.
pub const LARGEST: usize = 256 * 1024;
/// Version and length.
const HEAD: usize = 4;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It speaks something else, or another version.
    #[error(
        "it speaks version {0} of the protocol, this lbx speaks version {VERSION}; upgrade the older one"
    )]
    Version(u8),
    /// More than anybody may send.
    #[error("a message of {0} bytes, where {LARGEST} is the most")]
    Oversized(usize),
    /// No message.
    #[error("not a message: {0}")]
    Malformed(String),
    /// A message at the wrong time.
    #[error("{0}")]
    Unexpected(&'static str),
    /// Closed by the other side.
    #[error("the peer closed the connection")]
    Closed,
    /// Refused by the other side.
    #[error("the peer refuses: {0}")]
    Refused(String),
    /// Nothing came for too long.
    #[error("the peer is silent")]
    Silent,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// A short name for counters; `None` where nobody did anything wrong.
    pub const fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Version(_) => Some("version"),
            Self::Oversized(_) => Some("oversized"),
            Self::Malformed(_) | Self::Unexpected(_) => Some("malformed"),
            Self::Closed | Self::Refused(_) | Self::Silent | Self::Io(_) => None,
        }
    }
}

/// A message as a frame.
///
/// # Errors
/// It is too large.
pub fn encode(message: &Message) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, message).map_err(|error| Error::Malformed(error.to_string()))?;
    let length = frame.len() - HEAD;
    if length > LARGEST {
        return Err(Error::Oversized(length));
    }
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    frame[..HEAD].copy_from_slice(&[VERSION, high, middle, low]);
    Ok(frame)
}

/// Takes the first message off the bytes that came; `None`: not all of it is there yet.
///
/// # Errors
/// Whatever makes the rest of the connection unreadable.
pub fn decode(bytes: &mut Vec<u8>) -> Result<Option<Message>, Error> {
    let Some(&[version, high, middle, low]) = bytes.first_chunk::<HEAD>() else {
        // A stranger is told apart by the first byte.
        return match bytes.first() {
            Some(&version) if version != VERSION => Err(Error::Version(version)),
            _ => Ok(None),
        };
    };
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > LARGEST {
        return Err(Error::Oversized(length));
    }
    let Some(body) = bytes.get(HEAD..HEAD + length) else { return Ok(None) };
    let message: Message =
        serde_json::from_slice(body).map_err(|error| Error::Malformed(error.to_string()))?;
    message.check().map_err(Error::Malformed)?;
    bytes.drain(..HEAD + length);
    Ok(Some(message))
}

/// Reads messages off a stream. Safe to be cancelled between any two polls: what came stays.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    bytes: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// On a stream of which nothing was read yet.
    pub const fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new() }
    }

    /// The next message.
    ///
    /// # Errors
    /// See [`Error`]; nothing more is to be read after one.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = decode(&mut self.bytes)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }
}

/// Sends one message.
///
/// # Errors
/// It is too large, or the connection broke.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> Result<(), Error> {
    put(stream, &encode(message)?).await
}

/// Sends one message that is a frame already.
///
/// # Errors
/// The connection broke.
pub async fn put(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), Error> {
    stream.write_all(frame).await?;
    Ok(stream.flush().await?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peers::message::{Hello, VmHere};

    fn hello() -> Message {
        Message::Hello(Hello { name: "kvm1".into(), instance: "0-1".into(), software: "0.1.0".into() })
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let vm = VmHere {
            name: "web-1".into(),
            uuid: None,
            macs: vec!["52:54:00:00:00:05".into()],
            runs: None,
            holds: false,
        };
        let all = [hello(), Message::Ping, Message::Vms { vms: vec![vm; 3] }];
        let mut bytes: Vec<u8> = all.iter().flat_map(|message| encode(message).unwrap()).collect();
        for message in all {
            assert_eq!(decode(&mut bytes).unwrap(), Some(message));
        }
        assert_eq!(decode(&mut bytes).unwrap(), None);
    }

    #[test]
    fn other_versions_sizes_and_texts_are_told_apart() {
        let frame = |version: u8, body: &[u8]| [&[version, 0, 0, body.len() as u8], body].concat();
        assert!(matches!(decode(&mut frame(2, b"{}")), Err(Error::Version(2))));
        assert!(matches!(decode(&mut b"G".to_vec()), Err(Error::Version(b'G'))), "HTTP");
        assert!(matches!(decode(&mut vec![1, 4, 0, 1]), Err(Error::Oversized(0x4_0001))));
        assert!(matches!(decode(&mut frame(1, b"{}")), Err(Error::Malformed(_))));
        assert!(matches!(decode(&mut frame(1, br#"{"kind":"ping"}x"#)), Err(Error::Malformed(_))));
        let later = br#"{"kind":"dance","steps":3}"#;
        assert_eq!(decode(&mut frame(1, later)).unwrap(), Some(Message::Unknown), "of a later lbx");
        let more = br#"{"kind":"ping","louder":true}"#;
        assert_eq!(decode(&mut frame(1, more)).unwrap(), Some(Message::Ping));
        let deep = "[".repeat(100_000);
        let mut nested = vec![1, 1, 0x86, 0xa0];
        nested.extend(deep.bytes());
        assert!(matches!(decode(&mut nested), Err(Error::Malformed(_))));
    }

    #[test]
    fn too_large_a_message_is_not_sent() {
        let vm = VmHere { name: "x".repeat(200), uuid: None, macs: Vec::new(), runs: None, holds: false };
        let error = encode(&Message::Vms { vms: vec![vm; 2_000] }).unwrap_err();
        assert!(matches!(error, Error::Oversized(_)), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let before = bytes.len();
            if let Ok(Some(_)) = decode(&mut bytes) {
                prop_assert!(bytes.len() < before);
            }
        }

        #[test]
        fn arbitrary_bodies_never_panic(
            mut body in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
        ) {
            // A real message with something else in it.
            let frame = encode(&hello()).unwrap();
            let at = HEAD + at.index(frame.len() - HEAD);
            body.splice(0..0, frame[HEAD..at].iter().copied());
            let mut bytes = vec![VERSION, 0, (body.len() >> 8) as u8, body.len() as u8];
            bytes.extend(&body);
            let _ = decode(&mut bytes);
        }

        #[test]
        fn pieces_make_the_same_messages(cuts in proptest::collection::vec(1_usize..20, 1..40)) {
            let whole: Vec<u8> = [hello(), Message::Ping, Message::Pong, hello()]
                .iter()
                .flat_map(|message| encode(message).unwrap())
                .collect();
            let (mut buffer, mut found, mut rest) = (Vec::new(), 0, &whole[..]);
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                buffer.extend(piece);
                rest = left;
                while decode(&mut buffer).unwrap().is_some() {
                    found += 1;
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((found, buffer.len()), (4, 0));
        }
    }
}
