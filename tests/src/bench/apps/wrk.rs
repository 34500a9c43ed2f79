//! wrk, and what it says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Load;
use crate::lab::{Netns, tools};

/// What a run of wrk showed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Answer {
    /// Requests a second.
    pub requests: f64,
    /// Bytes a second.
    pub bytes: f64,
    /// Median latency in milliseconds.
    pub p50: f64,
    /// What 99 % of the latencies do not exceed, in milliseconds.
    pub p99: f64,
}

/// Loads a server for so long (at least a second: wrk counts in whole ones).
pub fn run(ns: &Netns, base: &str, load: Load, time: Duration) -> Result<Answer> {
    let mut command = ns.command("wrk");
    let seconds = time.as_secs_f64().ceil().max(1.0);
    command.args(["-t", "1", "--latency", "--timeout", "5s", "-d", &format!("{seconds}s")]);
    match load {
        Load::KeepAlive => command.args(["-c", "64"]).arg(format!("{base}/")),
        Load::Connections => command.args(["-c", "64", "-H", "Connection: close"]).arg(format!("{base}/")),
        Load::Bodies => command.args(["-c", "8"]).arg(format!("{base}/body")),
    };
    let text = tools::run(&mut command)?;
    let answer = parse(&text).with_context(|| text.clone())?;
    ensure!(answer.requests > 0.0, "no answer: {text}");
    Ok(answer)
}

fn parse(text: &str) -> Result<Answer> {
    if text.contains("Non-2xx") {
        bail!("some answers are errors");
    }
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name}"))
    };
    Ok(Answer {
        requests: field("Requests/sec:")?.parse()?,
        bytes: quantity(field("Transfer/sec:")?, &SIZES)?,
        p50: quantity(field("50%")?, &TIMES)?,
        p99: quantity(field("99%")?, &TIMES)?,
    })
}

/// Units of size in bytes: wrk writes GB and means 2^30.
const SIZES: [(&str, f64); 4] =
    [("GB", (1 << 30) as f64), ("MB", (1 << 20) as f64), ("KB", 1024.0), ("B", 1.0)];

/// Units of time in milliseconds, those that end in another's name first.
const TIMES: [(&str, f64); 4] = [("us", 1e-3), ("ms", 1.0), ("m", 60e3), ("s", 1e3)];

/// A number with a unit.
fn quantity(text: &str, units: &[(&str, f64)]) -> Result<f64> {
    for (unit, factor) in units {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text:?} is no quantity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "Running 2s test @ http://x/\n  1 threads and 64 connections\n  Latency Distribution\n     \
                    50%  520.00us\n     75%  1.1ms\n     90%    1.62ms\n     99%    1.20s\n  \
                    1000 requests in 2.00s, 3MB read\nRequests/sec:    500.50\nTransfer/sec:      1.50MB\n";
        let answer = parse(text).unwrap();
        assert_eq!((answer.requests, answer.p50, answer.p99), (500.5, 0.52, 1200.0));
        assert!((answer.bytes - 1.5 * f64::from(1 << 20)).abs() < 1.0, "{}", answer.bytes);
        assert!(parse("Requests/sec: 1\n").is_err());
        assert!(parse(&format!("{text}  Non-2xx or 3xx responses: 3\n")).is_err());
    }
}
