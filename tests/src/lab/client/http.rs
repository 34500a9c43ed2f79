//! An HTTP/1.1 client for the guests' server: one connection, any number of requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::socket;

/// How long a request may take unless the caller says otherwise.
pub const LIMIT: Duration = Duration::from_secs(10);

/// An answer with its body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The VM that answered (`X-VM`); empty when the header is missing.
    pub vm: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that is kept open between requests.
pub struct Connection {
    input: BufReader<TcpStream>,
    output: TcpStream,
    host: String,
}

/// The head of an answer whose body is still to be read.
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The VM that answered.
    pub vm: String,
    /// The body's length in bytes.
    pub length: u64,
}

impl Connection {
    /// Connects in the calling thread's namespace.
    pub fn open(to: SocketAddr, source: Option<IpAddr>, limit: Duration) -> io::Result<Self> {
        Self::over(socket::tcp(to, source, limit)?)
    }

    /// Uses a connected socket.
    pub fn over(output: TcpStream) -> io::Result<Self> {
        let host = output.peer_addr()?.to_string();
        Ok(Self { input: BufReader::new(output.try_clone()?), output, host })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.output
    }

    /// Sends a request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        service_ms: Option<u64>,
    ) -> Result<Answer> {
        self.send_head(method, path, body.len() as u64, service_ms)?;
        self.output.write_all(body)?;
        let head = self.read_head()?;
        let mut body = Vec::with_capacity(head.length.min(1 << 20) as usize);
        self.body(head.length).read_to_end(&mut body)?;
        if body.len() as u64 != head.length {
            bail!("the body ended after {} of {} bytes", body.len(), head.length);
        }
        Ok(Answer { status: head.status, vm: head.vm, body })
    }

    /// Sends a request's head; the caller sends `length` bytes of body through [`Connection::stream`].
    pub fn send_head(
        &mut self,
        method: &str,
        path: &str,
        length: u64,
        service_ms: Option<u64>,
    ) -> Result<()> {
        let service = service_ms.map(|ms| format!("X-Service-Time-Ms: {ms}\r\n")).unwrap_or_default();
        let host = &self.host;
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{service}\r\n");
        Ok(self.output.write_all(text.as_bytes())?)
    }

    /// Reads an answer's head.
    pub fn read_head(&mut self) -> Result<Head> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("the server closed the connection without an answer");
        }
        let status = line.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("not HTTP")?;
        let mut head = Head { status, vm: String::new(), length: 0 };
        loop {
            line.clear();
            if self.input.read_line(&mut line)? == 0 {
                bail!("the head of the answer is cut short");
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(head) };
            match name.to_ascii_lowercase().as_str() {
                "x-vm" => head.vm = value.trim().into(),
                "content-length" => head.length = value.trim().parse()?,
                _ => {}
            }
        }
    }

    /// The next `length` bytes of an answer's body.
    pub fn body(&mut self, length: u64) -> impl Read {
        (&mut self.input).take(length)
    }
}

/// One request on a connection of its own, in the calling thread's namespace.
pub fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    request_within(to, method, path, body, LIMIT)
}

/// [`request`] with a limit for each of connecting, sending and receiving.
pub fn request_within(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
    limit: Duration,
) -> Result<Answer> {
    Connection::open(to, None, limit)?.request(method, path, body, None)
}
