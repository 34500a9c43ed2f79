//! The way from peers: who may come in, and what they say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::frame::{Error, Reader, send};
use super::message::{Hello, Message};
use super::{News, Own, PATIENCE, SILENCE, What, tls};

/// Strangers that may be shaking hands at once.
const STRANGERS: usize = 32;
/// Pause before another try to listen, or to accept.
const AGAIN: Duration = Duration::from_secs(1);

/// Hears whoever may speak, until it is aborted.
pub(super) async fn run(own: Own, news: mpsc::Sender<News>) {
    let address = own.config.listen;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                own.table.set_problem(Some(format!("cannot listen on {address}: {error}; trying again")));
                sleep(AGAIN).await;
            }
        }
    };
    own.table.set_problem(None);
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    // Dropped with this task, and its connections with it.
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Arc::clone(&strangers).try_acquire_owned() {
                    Ok(place) => {
                        let (own, news) = (own.clone(), news.clone());
                        sessions.spawn(async move {
                            let let_in = timeout(PATIENCE, let_in(&own, stream, from)).await;
                            drop(place);
                            match let_in {
                                Ok(Some((name, stream))) => hear(&own, &name, from, stream, &news).await,
                                Ok(None) => {}
                                Err(_) => own.table.refuse(from, "silent", "no handshake within 5 s".to_owned()),
                            }
                        });
                    }
                    Err(_) => own.table.refuse(from, "busy", "too many handshakes at once".to_owned()),
                },
                // Out of descriptors, most likely.
                Err(error) => {
                    tracing::warn!("peers: cannot accept: {error}");
                    sleep(AGAIN).await;
                }
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// Shakes hands; who it is, unless it is refused.
async fn let_in(own: &Own, stream: TcpStream, from: SocketAddr) -> Option<(String, Tls)> {
    // Failure costs only time.
    let _ = stream.set_nodelay(true);
    let mut stream = match own.identity.acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            own.table.refuse(from, "tls", error.to_string());
            return None;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    let mut listed = own.config.others.iter().map(|peer| peer.name.as_str());
    let name = certificate.and_then(|certificate| tls::whose(&certificate, &mut listed).map(str::to_owned));
    if let Some(name) = name {
        return Some((name, stream));
    }
    let why = format!("its certificate is of no [[peer]] of {}", own.config.name);
    own.table.refuse(from, "unlisted", why.clone());
    let _ = send(&mut stream, &Message::Refused { why }).await;
    farewell(&mut stream).await;
    None
}

/// Lets the other side read the last words before the connection goes.
async fn farewell(stream: &mut (impl AsyncWrite + Unpin)) {
    let _ = timeout(PATIENCE, tokio::io::AsyncWriteExt::shutdown(stream)).await;
}

/// One connection of a peer, to its end.
async fn hear(own: &Own, peer: &str, from: SocketAddr, stream: Tls, news: &mpsc::Sender<News>) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader);
    let error = match greet(own, peer, &mut reader, &mut writer).await {
        Ok(hello) => {
            let (number, anew) = own.table.heard_first(peer, hello);
            let tell = async |what| {
                let _ = news.send(News { peer: peer.to_owned(), what }).await;
            };
            tracing::info!("peer {peer} is heard, from {from}");
            tell(What::Heard { anew }).await;
            let Err(error) = listen(own, peer, number, &mut reader, &mut writer, news).await;
            if own.table.lost(peer, number, &error.to_string()) {
                tell(What::Lost { why: error.to_string() }).await;
            }
            error
        }
        Err(error) => error,
    };
    if let Some(kind) = error.kind() {
        own.table.refuse(from, kind, error.to_string());
        let why = error.to_string().chars().take(200).filter(|c| !c.is_control()).collect();
        let _ = timeout(PATIENCE, send(&mut writer, &Message::Refused { why })).await;
    }
    farewell(&mut writer).await;
}

async fn greet<R, W>(own: &Own, peer: &str, reader: &mut Reader<R>, writer: &mut W) -> Result<Hello, Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let first = timeout(PATIENCE, reader.next()).await.map_err(|_| Error::Silent)??;
    let Message::Hello(hello) = first else { return Err(Error::Unexpected("it does not greet")) };
    if hello.name != peer {
        return Err(Error::Unexpected("it greets by another name than its certificate's"));
    }
    timeout(PATIENCE, send(writer, &Message::Hello(own.hello.clone())))
        .await
        .map_err(|_| Error::Silent)??;
    Ok(hello)
}

async fn listen<R, W>(
    own: &Own,
    peer: &str,
    number: u64,
    reader: &mut Reader<R>,
    writer: &mut W,
    news: &mpsc::Sender<News>,
) -> Result<std::convert::Infallible, Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let message = timeout(SILENCE, reader.next()).await.map_err(|_| Error::Silent)??;
        let vms = if let Message::Vms { vms } = &message { Some(vms.as_slice()) } else { None };
        if !own.table.heard(peer, number, vms) {
            // It has connected anew since.
            return Err(Error::Closed);
        }
        let what = match message {
            Message::Ping => {
                timeout(PATIENCE, send(writer, &Message::Pong)).await.map_err(|_| Error::Silent)??;
                continue;
            }
            Message::Runs { vm } => {
                own.ears.runs_there(peer, &vm);
                continue;
            }
            Message::Vms { vms } => What::Vms(vms),
            Message::Migrations { migrations } => What::Migrations(migrations),
            Message::Hello(_) => return Err(Error::Unexpected("it greets twice")),
            Message::Refused { why } => return Err(Error::Refused(why)),
            Message::Pong | Message::Unknown => continue,
        };
        if news.send(News { peer: peer.to_owned(), what }).await.is_err() {
            return Err(Error::Closed);
        }
    }
}
