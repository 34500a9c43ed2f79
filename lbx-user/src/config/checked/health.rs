//! `[service.health]`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::units::format_duration;

/// `[service.health]`; empty: targets are not probed. A target is healthy while all of its checks succeed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// At most one of each kind.
    pub checks: Vec<HealthCheck>,
}

/// One way to probe the targets of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// How long a probe may take; at most the interval.
    pub timeout: Duration,
    /// Successes in a row that bring a target up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Connect by TCP.
    Tcp {
        /// The port; `None`: the target's, else the service's single port.
        port: Option<u16>,
    },
    /// GET over plain HTTP/1.1.
    Http {
        /// The port, as for TCP.
        port: Option<u16>,
        /// Path and query.
        path: String,
        /// The `Host` header; `None`: address and port.
        host: Option<String>,
        /// Lowest and highest status that is right.
        status: (u16, u16),
        /// What the first 64 KiB of the body must contain.
        body: Option<String>,
    },
    /// ICMP echo.
    Icmp,
    /// A program that ends with status 0.
    Command {
        /// Program and arguments; `{address}`, `{port}` and `{target}` are filled in.
        argv: Vec<String>,
        /// The port that `{port}` stands for, as for TCP.
        port: Option<u16>,
    },
}

impl Probe {
    /// Its key in the file.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http { .. } => "http",
            Self::Icmp => "icmp",
            Self::Command { .. } => "command",
        }
    }

    /// The port the file names.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } | Self::Command { port, .. } => *port,
            Self::Icmp => None,
        }
    }

    /// Whether it goes to an address of the target.
    pub fn needs_address(&self) -> bool {
        match self {
            Self::Command { argv, .. } => argv.iter().any(|word| word.contains("{address}")),
            _ => true,
        }
    }

    /// Whether it goes to a port.
    pub fn needs_port(&self) -> bool {
        match self {
            Self::Command { argv, .. } => argv.iter().any(|word| word.contains("{port}")),
            Self::Icmp => false,
            Self::Tcp { .. } | Self::Http { .. } => true,
        }
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interval, timeout) = (format_duration(self.interval), format_duration(self.timeout));
        let (kind, rise, fall) = (self.probe.kind(), self.rise, self.fall);
        write!(f, "{kind} every {interval} within {timeout} rise {rise} fall {fall}")?;
        if let Some(port) = self.probe.port() {
            write!(f, " port {port}")?;
        }
        match &self.probe {
            Probe::Http { path, host, status, body, .. } => {
                write!(f, " GET {path} status {}-{}", status.0, status.1)?;
                host.as_ref().map_or(Ok(()), |host| write!(f, " host {host}"))?;
                body.as_ref().map_or(Ok(()), |body| write!(f, " body {body:?}"))
            }
            Probe::Command { argv, .. } => write!(f, " {}", argv.join(" ")),
            Probe::Tcp { .. } | Probe::Icmp => Ok(()),
        }
    }
}
