//! The way to a peer: connect, say who we are, say how things are, again whenever they change.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::frame::{Error, Reader, put, send};
use super::message::Message;
use super::{Own, PATIENCE, PING, SILENCE, Told, tls};
use crate::config::Peer;

/// The first pause before another try.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lasted longer than this was one: its end is no reason to hesitate.
const LIVED: Duration = Duration::from_secs(1);

/// Keeps the peer told, until it is aborted.
pub(super) async fn run(own: Own, peer: Peer, mut told: watch::Receiver<Told>) {
    let mut pause = FIRST;
    loop {
        let mut reached = None;
        let why = tell(&own, &peer, &mut told, &mut reached).await;
        own.table.unreachable(&peer.name, &why.to_string());
        if reached.is_some_and(|at: Instant| at.elapsed() > LIVED) {
            pause = FIRST;
        }
        sleep(spread(pause, &peer.name)).await;
        pause = (2 * pause).min(LONGEST);
    }
}

/// Hosts that lost each other at the same moment do not all come back at the same one: up to a quarter less,
/// by name and time.
fn spread(pause: Duration, name: &str) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mixed = name
        .bytes()
        .fold(now.subsec_nanos(), |sum, byte| sum.wrapping_mul(0x0100_0193).wrapping_add(u32::from(byte)));
    pause / 4 * 3 + pause / 4 * (mixed >> 24) / 256
}

/// One connection; why it ended.
async fn tell(
    own: &Own,
    peer: &Peer,
    told: &mut watch::Receiver<Told>,
    reached: &mut Option<Instant>,
) -> Error {
    let connect = async {
        let stream = TcpStream::connect(peer.address).await?;
        stream.set_nodelay(true)?;
        let name = tls::server_name(&peer.name).map_err(std::io::Error::other)?;
        own.identity.connector.connect(name, stream).await
    };
    let stream = match timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error.into(),
        Err(_) => return Error::Silent,
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader);
    match timeout(PATIENCE, greet(own, peer, &mut reader, &mut writer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return error,
        Err(_) => return Error::Silent,
    }
    *reached = Some(Instant::now());
    own.table.reached(&peer.name);
    match keep(own, peer, &mut reader, &mut writer, told).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn greet<R, W>(own: &Own, peer: &Peer, reader: &mut Reader<R>, writer: &mut W) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    send(writer, &Message::Hello(own.hello.clone())).await?;
    match reader.next().await? {
        Message::Hello(hello) if hello.name == peer.name => Ok(()),
        Message::Hello(_) => Err(Error::Unexpected("it greets by another name than its certificate's")),
        Message::Refused { why } => Err(Error::Refused(why)),
        _ => Err(Error::Unexpected("it does not greet")),
    }
}

async fn keep<R, W>(
    own: &Own,
    peer: &Peer,
    reader: &mut Reader<R>,
    writer: &mut W,
    told: &mut watch::Receiver<Told>,
) -> Result<std::convert::Infallible, Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut known: Option<Told> = None;
    // What was said before is no news any more.
    let mut frames = own.ears.fast.frames();
    let mut heard = Instant::now();
    let mut ticks = interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = told.borrow_and_update().clone();
        let mut news = now.since(known.as_ref());
        known = Some(now);
        if news.is_empty() {
            tokio::select! {
                biased;
                frame = frames.recv() => {
                    // Those that were too many are told as steps.
                    if let Ok(frame) = frame {
                        timeout(PATIENCE, put(writer, &frame)).await.map_err(|_| Error::Silent)??;
                        own.table.sent(&peer.name);
                    }
                }
                message = reader.next() => {
                    if let Message::Refused { why } = message? {
                        return Err(Error::Refused(why));
                    }
                    heard = Instant::now();
                    own.table.answered(&peer.name);
                }
                changed = told.changed() => if changed.is_err() {
                    // Nobody is left who could tell anything.
                    return Err(Error::Closed);
                },
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Error::Silent);
                    }
                    news.push(Message::Ping);
                }
            }
        }
        for message in news {
            timeout(PATIENCE, send(writer, &message)).await.map_err(|_| Error::Silent)??;
            own.table.sent(&peer.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer() {
        for name in ["a", "kvm1", "kvm2"] {
            let pause = spread(LONGEST, name);
            assert!(pause <= LONGEST && pause >= LONGEST * 3 / 4, "{pause:?}");
        }
    }
}
