//! A client of QMP, QEMU's machine protocol: one JSON object a line (QEMU's docs/interop/qmp-spec.rst).
//!
//! One socket serves one client: lbx needs one of its own. A monitor may stop answering at any moment, so every
//! wait here can be cancelled and taken up again without losing anything.

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A line is never longer: what is behind the socket is a VM, and may be anything.
const LONGEST: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side does not speak QMP.
    #[error("not QMP: {0}")]
    Garbled(String),
    /// QEMU refused the command.
    #[error("{0}")]
    Refused(String),
}

/// A connection. Events are read with answers. One command is outstanding at a time.
pub struct Qmp {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
    partial: Vec<u8>,
    sent: u64,
    on_event: Option<OnEvent>,
}

/// Is told of every event the moment it is read.
type OnEvent = Box<dyn FnMut(&Value) + Send>;

impl Qmp {
    /// Connects; [`Qmp::greet`] follows.
    ///
    /// # Errors
    /// There is no socket, or no right to use it.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (input, output) = UnixStream::connect(path).await?.into_split();
        Ok(Self { input: BufReader::new(input), output, partial: Vec::new(), sent: 0, on_event: None })
    }

    /// Has every event told from now on, while an answer is waited for and in [`Qmp::listen`].
    pub fn on_event(&mut self, told: impl FnMut(&Value) + Send + 'static) {
        self.on_event = Some(Box::new(told));
    }

    /// Hears events until the connection ends; may be cancelled and called again.
    ///
    /// # Errors
    /// Its end.
    pub async fn listen(&mut self) -> Result<std::convert::Infallible, Error> {
        loop {
            self.message().await?;
        }
    }

    /// Waits for the greeting: it does not come while somebody else is connected.
    ///
    /// # Errors
    /// The connection ended, or it is no QMP.
    pub async fn greet(&mut self) -> Result<(), Error> {
        let message = self.message().await?;
        if message.get("QMP").is_some() { Ok(()) } else { Err(Error::Garbled(message.to_string())) }
    }

    /// Sends a command whose answer is then waited for with [`Qmp::answer`].
    ///
    /// # Errors
    /// The connection ended.
    pub async fn send(&mut self, command: &str, arguments: &Value) -> Result<(), Error> {
        self.sent += 1;
        let line = json!({ "execute": command, "arguments": arguments, "id": self.sent }).to_string() + "\n";
        Ok(self.output.write_all(line.as_bytes()).await?)
    }

    /// The answer to the last command; events in between are passed over. May be cancelled and called again.
    ///
    /// # Errors
    /// QEMU refused the command, or the connection ended.
    pub async fn answer(&mut self) -> Result<Value, Error> {
        loop {
            let mut message = self.message().await?;
            if message["id"].as_u64() != Some(self.sent) {
                continue;
            }
            if let Some(error) = message.get("error") {
                return Err(Error::Refused(error["desc"].as_str().unwrap_or("refused").to_owned()));
            }
            return Ok(message["return"].take());
        }
    }

    async fn message(&mut self) -> Result<Value, Error> {
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the monitor closed the connection",
                )
                .into());
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(available.len(), |end| end + 1);
            self.partial.extend_from_slice(&available[..used]);
            self.input.consume(used);
            if self.partial.len() > LONGEST {
                return Err(Error::Garbled(format!("a line of more than {LONGEST} bytes")));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                let message: Value =
                    serde_json::from_slice(&line).map_err(|error| Error::Garbled(error.to_string()))?;
                if let Some(told) = self.on_event.as_mut().filter(|_| message.get("event").is_some()) {
                    told(&message);
                }
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_found_among_events_and_late_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (input, mut output) = stream.into_split();
            let mut lines = BufReader::new(input).lines();
            output.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
            assert_eq!(first["execute"], "query-status");
            // Half a line, and the rest after the client has lost its patience once.
            output.write_all(b"{\"event\": \"STOP\"}\n{\"return\": {\"run").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            output.write_all(b"ning\": true}, \"id\": 1}\n").await.unwrap();
            lines.next_line().await.unwrap();
            let refusal = b"{\"return\": 7, \"id\": 1}\n{\"id\": 2, \"error\": {\"desc\": \"no such\"}}\n";
            output.write_all(refusal).await.unwrap();
        });
        let mut qmp = Qmp::connect(&path).await.unwrap();
        qmp.greet().await.unwrap();
        qmp.send("query-status", &json!({})).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(10), qmp.answer()).await;
        assert!(early.is_err(), "the answer is not complete yet");
        assert_eq!(qmp.answer().await.unwrap()["running"], true);
        qmp.send("qom-get", &json!({})).await.unwrap();
        assert!(matches!(qmp.answer().await, Err(Error::Refused(text)) if text == "no such"));
        server.await.unwrap();
        assert!(matches!(qmp.answer().await, Err(Error::Io(_))), "it is closed");
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            for text in ["SSH-2.0\n".to_owned(), "{\"hello\": 1}\n".to_owned(), "x".repeat(LONGEST + 1)] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        for _ in 0..3 {
            let mut qmp = Qmp::connect(&path).await.unwrap();
            assert!(matches!(qmp.greet().await, Err(Error::Garbled(_))));
        }
        assert!(Qmp::connect(&dir.path().join("none")).await.is_err());
    }
}
