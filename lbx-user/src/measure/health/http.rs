//! GET over plain HTTP/1.1.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use lbx_common::health::Outcome;

use super::tcp;

/// So much of a body is looked at.
const BODY: usize = 64 << 10;

/// What is asked for, and what is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Path and query.
    pub(super) path: &'a str,
    /// The `Host` header; address and port without.
    pub(super) host: Option<&'a str>,
    /// Lowest and highest status.
    pub(super) status: (u16, u16),
    /// What the body must contain.
    pub(super) body: Option<&'a str>,
}

/// Asks once, on a connection of its own. Whoever accepted the connection is there: from then on a failure is the
/// target's own.
pub(super) async fn probe(to: SocketAddr, ask: &Ask<'_>, timeout: Duration) -> (Outcome, String) {
    let started = Instant::now();
    let stream = match tcp::connect(to, timeout).await {
        Ok(stream) => TokioIo::new(stream),
        Err(told) => return told,
    };
    let left = timeout.saturating_sub(started.elapsed());
    match tokio::time::timeout(left, exchange(stream, to, ask)).await {
        Ok(Ok(status)) => (Outcome::Good, format!("{to}{} answered {status}", ask.path)),
        Ok(Err(why)) => (Outcome::Refused, format!("{to}{}: {why}", ask.path)),
        Err(_) => {
            let within = timeout.as_millis();
            (Outcome::Refused, format!("{to}{}: connected, but no answer within {within} ms", ask.path))
        }
    }
}

async fn exchange(
    stream: TokioIo<tokio::net::TcpStream>,
    to: SocketAddr,
    ask: &Ask<'_>,
) -> Result<StatusCode, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    // It ends when the sender and the answer are dropped, whichever way this function ends.
    tokio::spawn(connection);
    let request = Request::get(ask.path)
        .header(header::HOST, ask.host.map_or_else(|| to.to_string(), ToOwned::to_owned))
        .header(header::USER_AGENT, "lbx-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (status, (low, high)) = (response.status(), ask.status);
    if !(low..=high).contains(&status.as_u16()) {
        let wanted = if low == high { low.to_string() } else { format!("{low}-{high}") };
        return Err(format!("status {}, not {wanted}", status.as_u16()));
    }
    match ask.body {
        Some(wanted) if !contains(response.into_body(), wanted.as_bytes()).await? => {
            Err(format!("status {}, but the body does not contain {wanted:?}", status.as_u16()))
        }
        _ => Ok(status),
    }
}

/// Whether the beginning of a body contains some bytes; reads no further than it must.
async fn contains(mut body: Incoming, wanted: &[u8]) -> Result<bool, String> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        text.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        text.truncate(BODY);
        if text.windows(wanted.len()).any(|window| window == wanted) {
            return Ok(true);
        }
        if text.len() == BODY {
            break;
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ASK: Ask<'_> = Ask { path: "/up?x=1", host: None, status: (200, 299), body: None };

    /// Serves one connection with a fixed text; what it was asked.
    async fn serve(text: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            if text.is_empty() {
                // Says nothing, and does not hang up either.
                let _ = stream.read(&mut [0; 1]).await;
            }
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        (to, task)
    }

    async fn outcome(text: &'static str, ask: &Ask<'_>) -> (Outcome, String) {
        let (to, server) = serve(text).await;
        let told = probe(to, ask, Duration::from_secs(10)).await;
        server.abort();
        told
    }

    #[tokio::test]
    async fn status_and_body_decide() {
        let with_body = Ask { body: Some("all well"), ..ASK };
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nit is all well";
        let rows: [(&'static str, &Ask<'_>, Outcome, &str); 6] = [
            (ok, &ASK, Outcome::Good, "answered 200"),
            (ok, &with_body, Outcome::Good, "answered 200"),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nit is ill",
                &with_body,
                Outcome::Refused,
                "contain",
            ),
            (
                "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
                &ASK,
                Outcome::Refused,
                "status 503, not 200-299",
            ),
            ("SSH-2.0-OpenSSH\r\n", &ASK, Outcome::Refused, "HTTP"),
            ("HTTP/1.1 204 Nothing\r\n\r\n", &ASK, Outcome::Good, "204"),
        ];
        for (text, ask, expected, says) in rows {
            let (outcome, detail) = outcome(text, ask).await;
            assert_eq!(outcome, expected, "{text:?}: {detail}");
            assert!(detail.contains(says), "{detail}");
        }
    }

    #[tokio::test]
    async fn a_request_names_its_host_and_waits_no_longer_than_it_may() {
        let (to, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        probe(to, &Ask { host: Some("www.example"), ..ASK }, Duration::from_secs(10)).await;
        let asked = server.await.unwrap().to_lowercase();
        assert!(
            asked.starts_with("get /up?x=1 http/1.1\r\n") && asked.contains("host: www.example\r\n"),
            "{asked}"
        );

        let (to, server) = serve("").await;
        let (outcome, detail) = probe(to, &ASK, Duration::from_millis(50)).await;
        assert_eq!(outcome, Outcome::Refused, "it accepted: {detail}");
        assert!(detail.contains("connected, but"), "{detail}");
        server.abort();
    }
}
