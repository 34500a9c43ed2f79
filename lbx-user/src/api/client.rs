//! Asking the daemon: HTTP/1.1 over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::model::{Answer, ErrorAnswer, SCHEMA};

/// An answer is never larger than this: flows are asked for in portions.
const MOST: usize = 256 << 20;

/// How long the daemon may take; a reload reads the whole host anew.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket.
    #[error("the daemon is not running (nobody listens at {})", .0.display())]
    NotRunning(PathBuf),
    /// The socket is there and the caller may not use it.
    #[error("{}: permission denied; be root or in the group lbx", .0.display())]
    Denied(PathBuf),
    /// The daemon refused, with its words.
    #[error("{}", .1.error)]
    Refused(u16, ErrorAnswer),
    /// The daemon did not answer in time.
    #[error("the daemon does not answer (waited {} s)", PATIENCE.as_secs())]
    Silent,
    /// It speaks another version of the API.
    #[error("the daemon speaks schema {0} of the API, this lbx speaks {SCHEMA}; restart the daemon")]
    Schema(u32),
    /// What came back makes no sense.
    #[error("talking to the daemon: {0}")]
    Garbled(String),
}

/// A daemon's socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For a socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks: GET `route` with a query.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, route: &str, query: &impl Serialize) -> Result<T, Error> {
        let query = query_string(query)?;
        let uri = if query.is_empty() { route.to_owned() } else { format!("{route}?{query}") };
        self.call(Method::GET, &uri, Bytes::new()).await
    }

    /// Has something done: POST `route` with a body.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn post<T: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(garbled)?;
        self.call(Method::POST, route, body.into()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, uri: &str, body: Bytes) -> Result<T, Error> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, uri, body)).await {
            Ok(Ok((status, bytes))) => parse(status, &bytes),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Silent),
        }
    }

    async fn exchange(&self, method: Method, uri: &str, body: Bytes) -> Result<(u16, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NotRunning(self.socket.clone())
            }
            io::ErrorKind::PermissionDenied => Error::Denied(self.socket.clone()),
            _ => garbled(error),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "lbx")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(garbled)?;
        let response = sender.send_request(request).await.map_err(garbled)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        driver.abort();
        Ok((status, body.map_err(garbled)?.to_bytes()))
    }
}

fn parse<T: DeserializeOwned>(status: u16, bytes: &[u8]) -> Result<T, Error> {
    if !(200..300).contains(&status) {
        let answer: Result<ErrorAnswer, _> = serde_json::from_slice(bytes);
        let answer = answer.unwrap_or_else(|_| ErrorAnswer {
            error: format!(
                "the daemon answered with status {status}: {}",
                String::from_utf8_lossy(bytes).trim()
            ),
            problems: Vec::new(),
        });
        return Err(Error::Refused(status, answer));
    }
    #[derive(serde::Deserialize)]
    struct Head {
        schema: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(garbled)?;
    if head.schema != SCHEMA {
        return Err(Error::Schema(head.schema));
    }
    let answer: Answer<T> = serde_json::from_slice(bytes).map_err(garbled)?;
    Ok(answer.body)
}

fn garbled(error: impl std::fmt::Display) -> Error {
    Error::Garbled(error.to_string())
}

/// A flat structure as a query; absent fields are left out.
fn query_string(query: &impl Serialize) -> Result<String, Error> {
    let value = serde_json::to_value(query).map_err(garbled)?;
    let mut text = String::new();
    let Some(fields) = value.as_object() else { return Ok(text) };
    for (key, value) in fields {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{FlowQuery, Services};

    #[test]
    fn a_query_is_escaped_and_leaves_out_what_is_absent() {
        let query = FlowQuery {
            target: Some("web/ä b".into()),
            client: Some("2001:db8::/32".parse().unwrap()),
            older: Some(5),
            ..FlowQuery::default()
        };
        let text = query_string(&query).unwrap();
        assert_eq!(text, "client=2001%3Adb8%3A%3A%2F32&older=5&target=web%2F%C3%A4%20b");
        assert_eq!(query_string(&()).unwrap(), "");
    }

    #[test]
    fn refusals_and_other_schemas_are_errors() {
        let refused = parse::<Services>(404, br#"{"error":"no target \"x\""}"#).unwrap_err();
        assert_eq!(refused.to_string(), "no target \"x\"");
        assert!(matches!(parse::<Services>(200, br#"{"schema":2}"#), Err(Error::Schema(2))));
        assert!(matches!(parse::<Services>(200, b"<html>"), Err(Error::Garbled(_))));
        assert!(parse::<Services>(502, b"oops").unwrap_err().to_string().contains("502"));
        assert!(parse::<Services>(200, br#"{"schema":1,"services":[]}"#).is_ok());
    }

    #[tokio::test]
    async fn nobody_there_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&dir.path().join("none.sock"));
        let error = client.get::<Services>("/v1/services", &()).await.unwrap_err();
        assert!(matches!(error, Error::NotRunning(_)), "{error}");
    }
}
