//! A small QMP client: QEMU's machine protocol, one JSON object per line (docs/interop/qmp-spec).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection past capability negotiation. QEMU serves one client per socket.
pub struct Qmp {
    input: BufReader<UnixStream>,
    output: UnixStream,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(path: &Path) -> Result<Self> {
        let output =
            UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
        output.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut qmp = Self { input: BufReader::new(output.try_clone()?), output, events: Vec::new() };
        qmp.read().context("QMP greeting")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; its `return` value. Events that come in between are kept.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.output.write_all((line + "\n").as_bytes())?;
        loop {
            let mut message = self.read()?;
            if !message["event"].is_null() {
                self.events.push(message);
            } else if !message["error"].is_null() {
                bail!("QMP {command}: {}", message["error"]["desc"]);
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Waits for an event of a name; the whole event. Earlier events are dropped.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event =
                self.next_event(left).with_context(|| format!("no QMP event {name} within {limit:?}"))?;
            if event["event"] == name {
                return Ok(event);
            }
        }
    }

    /// The next event, whatever it is.
    pub fn next_event(&mut self, limit: Duration) -> Result<Value> {
        if !self.events.is_empty() {
            return Ok(self.events.remove(0));
        }
        self.output.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let event = self.read();
        self.output.set_read_timeout(Some(Duration::from_secs(10)))?;
        event
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("QEMU closed the QMP connection");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
