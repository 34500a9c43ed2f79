//! Against a daemon played by the test: what a real one never does.

use tokio::net::UnixListener;

use super::*;
use crate::host::libvirt::wire::HEADER;
use crate::host::libvirt::{Change, Why};

/// A daemon that answers the calls of a connection that is set up, each with the body given for it, and then sends
/// what it is told to.
async fn daemon(listener: UnixListener, auth: &[u8], then: Vec<u8>) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut calls = 0;
    while calls < 7 {
        let mut header = [0; HEADER];
        if stream.read_exact(&mut header).await.is_err() {
            return stream;
        }
        let word = |at: usize| u32::from_be_bytes(header[at * 4..at * 4 + 4].try_into().unwrap());
        let mut body = vec![0; word(0) as usize - HEADER];
        stream.read_exact(&mut body).await.unwrap();
        let answer: &[u8] = match word(3) {
            66 => auth,
            157 => b"\0\0\0\0\0\x89\x54\x40",
            273 => b"\0\0\0\x01\0\0\0\x02vm\0\0\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\0\0\0\x05\0\0\0\x01",
            _ => b"",
        };
        let mut frame = Writer::default().u32((HEADER + answer.len()) as u32).opaque(&header[4..16]).u32(1);
        frame = frame.opaque(&header[20..24]).u32(0).opaque(answer);
        stream.write_all(&frame.done()).await.unwrap();
        calls += 1;
    }
    stream.write_all(&then).await.unwrap();
    stream
}

const NO_AUTHENTICATION: &[u8] = b"\0\0\0\x01\0\0\0\0";

fn event(procedure: i32, rest: &[u8]) -> Vec<u8> {
    let vm = Domain { name: "vm".to_owned(), uuid: [0x11; 16], id: 5 };
    let body = vm.write(Writer::default().u32(0)).opaque(rest).done();
    let header = Writer::default().u32((HEADER + body.len()) as u32).u32(0x2000_8086).u32(1).i32(procedure);
    header.u32(2).u32(0).u32(0).opaque(&body).done()
}

async fn open(auth: &'static [u8], then: Vec<u8>) -> (Result<Session, Error>, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(daemon(listener, auth, then));
    let session = Session::open(&path).await;
    if session.is_err() {
        server.abort();
        return (session, UnixStream::pair().unwrap().0);
    }
    (session, server.await.unwrap())
}

#[tokio::test]
async fn a_session_and_its_events() {
    let ping = Writer::default().u32(28).u32(0x6b65_6570).u32(1).u32(1).u32(2).u32(0).u32(0).done();
    let suspended = event(318, b"\0\0\0\x03\0\0\0\x01");
    let (session, mut server) = open(NO_AUTHENTICATION, [ping, suspended].concat()).await;
    let mut session = session.unwrap();
    assert_eq!((session.version.as_str(), session.running.len()), ("9.0.0", 1));
    let vm = session.running[0].clone();
    let notice = Notice::Lifecycle(vm.clone(), Change::Suspended(Why::Migrated));
    assert_eq!(session.next().await.unwrap(), Incoming::Notice(notice));
    let mut pong = [0; HEADER];
    server.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong[..], wire::pong());

    // A frame in pieces, with the wait for it given up in between.
    let iteration = event(359, b"\0\0\0\x04");
    for part in iteration.chunks(7) {
        server.write_all(part).await.unwrap();
        if part.len() == 7 {
            assert!(timeout(Duration::from_millis(5), session.next()).await.is_err());
        }
    }
    assert_eq!(session.next().await.unwrap(), Incoming::Notice(Notice::Iteration(vm.clone(), 4)));

    // A question that is refused.
    session.ask_job(&vm).await.unwrap();
    let mut asked = [0; HEADER];
    server.read_exact(&mut asked).await.unwrap();
    let body = Writer::default().i32(42).i32(10).u32(0).done();
    let refusal = Writer::default().u32((HEADER + body.len()) as u32).opaque(&asked[4..16]).u32(1);
    server.write_all(&refusal.opaque(&asked[20..24]).u32(1).opaque(&body).done()).await.unwrap();
    assert_eq!(session.next().await.unwrap(), Incoming::Answer(vm, Answer::Gone));
    drop(server);
    assert!(matches!(session.next().await, Err(Error::Closed | Error::Io(_))));
}

#[tokio::test]
async fn what_is_too_long_or_garbled_ends_the_session_with_a_reason() {
    let (session, _server) = open(NO_AUTHENTICATION, b"\x7f\xff\xff\xff rest".to_vec()).await;
    let error = session.unwrap().next().await.unwrap_err().to_string();
    assert!(error.contains("2147483647 bytes, more than the 4194304"), "{error}");
    let (session, _server) = open(NO_AUTHENTICATION, event(318, b"\0\0\0\x03")).await;
    let error = session.unwrap().next().await.unwrap_err().to_string();
    assert!(error.contains("318") && error.contains("cut short"), "{error}");
}

#[tokio::test]
async fn a_daemon_that_wants_a_password_is_refused() {
    // SASL, then polkit.
    let (session, _) = open(b"\0\0\0\x02\0\0\0\x01\0\0\0\x02", Vec::new()).await;
    assert!(matches!(session, Err(Error::Auth)));
    let nowhere = Session::open(Path::new("/nonexistent/libvirt-sock")).await;
    assert!(matches!(nowhere, Err(Error::Io(_))));
}
