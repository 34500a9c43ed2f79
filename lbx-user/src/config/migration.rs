//! `[migration]`: what is done with the traffic of a VM that is migrated.

use std::time::Duration;

use lbx_common::migration::{Limits, Rules};
use serde::Serialize;

use super::build::{choice, duration};
use super::raw::Table;

/// `[migration]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// When packets to the VM are dropped: only while it is stopped, or for the whole transfer.
    pub blackhole: Blackhole,
    /// What becomes of packets while it is stopped.
    pub stopped: Stopped,
    /// Share of its new flows that it keeps until it is stopped, per cent.
    pub share: u8,
    /// How long `announce --wait` waits for its flows to end unless it is told otherwise.
    pub drain: Duration,
    /// How long UDP flows stay with it before they are chosen anew.
    pub udp: Duration,
    /// How long its share takes to grow back.
    pub slow_start: Duration,
    /// After how long without news a phase is looked into.
    pub watchdog: Watchdog,
}

/// `migration.blackhole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blackhole {
    /// From STOP to RESUME.
    Stopped,
    /// From the first byte sent to RESUME.
    Migration,
}

/// `migration.stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stopped {
    /// They are dropped and counted.
    Blackhole,
    /// They wait in the queue of the vNIC at the host that the VM goes to, where that is possible.
    Hold,
}

/// `migration.watchdog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Watchdog {
    /// Announced, and nothing begins.
    pub announced: Duration,
    /// Transferring.
    pub transferring: Duration,
    /// Stopped.
    pub stopped: Duration,
    /// Resumed, and nobody says how it ended.
    pub resumed: Duration,
}

impl Default for Migration {
    fn default() -> Self {
        let limits = Rules::default().limits;
        Self {
            blackhole: Blackhole::Stopped,
            stopped: Stopped::Blackhole,
            share: 0,
            drain: Duration::from_mins(1),
            udp: Duration::from_micros(Rules::default().datagrams),
            slow_start: Duration::from_secs(10),
            watchdog: Watchdog {
                announced: Duration::from_micros(limits.announced),
                transferring: Duration::from_micros(limits.transferring),
                stopped: Duration::from_micros(limits.stopped),
                resumed: Duration::from_micros(limits.resumed),
            },
        }
    }
}

impl Migration {
    /// As decisions are made by it.
    pub fn rules(&self) -> Rules {
        let micros = |time: Duration| time.as_micros() as u64;
        Rules {
            blackhole_all: self.blackhole == Blackhole::Migration,
            hold: self.stopped == Stopped::Hold,
            share: u16::from(self.share) * 10,
            datagrams: micros(self.udp),
            slow_start: micros(self.slow_start),
            limits: Limits {
                announced: micros(self.watchdog.announced),
                transferring: micros(self.watchdog.transferring),
                stopped: micros(self.watchdog.stopped),
                resumed: micros(self.watchdog.resumed),
            },
        }
    }
}

/// Reads `[migration]`. `tunnels`: this host has an end of them.
pub(super) fn migration(table: &Table<'_, '_>, tunnels: bool) -> Migration {
    let mut migration = Migration::default();
    let words = [("stopped", Blackhole::Stopped), ("migration", Blackhole::Migration)];
    if let Some(blackhole) = choice(table, "blackhole", &words) {
        migration.blackhole = blackhole;
    }
    if let Some(stopped) =
        choice(table, "stopped", &[("blackhole", Stopped::Blackhole), ("hold", Stopped::Hold)])
    {
        migration.stopped = stopped;
        let all = migration.blackhole == Blackhole::Migration;
        if stopped == Stopped::Hold && all {
            table.error(
                "stopped",
                "with `blackhole = \"migration\"` packets are dropped, and none can wait",
                None,
            );
        }
        if stopped == Stopped::Hold && !tunnels {
            let hint = "give `[peers]` and each `[[peer]]` a `tunnel`, on one network too";
            let text =
                "packets wait at hosts that are reached by a tunnel, and there is none: they are dropped";
            table.warn("stopped", text, Some(hint.to_owned()));
        }
    }
    if let Some(share) = table.integer("share", 0..=100) {
        migration.share = share.value as u8;
    }
    let day = Duration::from_hours(24);
    if let Some(drain) = duration(table, "drain", &(Duration::from_secs(1)..=day)) {
        migration.drain = drain;
    }
    if let Some(udp) = duration(table, "udp", &(Duration::ZERO..=day)) {
        migration.udp = udp;
    }
    if let Some(slow_start) = duration(table, "slow_start", &(Duration::ZERO..=Duration::from_hours(1))) {
        migration.slow_start = slow_start;
    }
    if let Some(times) = table.table("watchdog") {
        let watchdog = &mut migration.watchdog;
        let fields = [
            ("announced", &mut watchdog.announced),
            ("transferring", &mut watchdog.transferring),
            ("stopped", &mut watchdog.stopped),
            ("resumed", &mut watchdog.resumed),
        ];
        for (key, field) in fields {
            if let Some(time) = duration(&times, key, &(Duration::from_secs(1)..=day)) {
                *field = time;
            }
        }
        times.finish();
    }
    table.finish();
    migration
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Severity};

    #[test]
    fn what_is_said_counts_and_the_rest_has_defaults() {
        let config = Config::parse("f", "").unwrap();
        assert_eq!(config.migration.rules(), Rules::default());
        let text = "[migration]\nblackhole = \"migration\"\nshare = 5\nudp = \"7s\"\nslow_start = \"30s\"\n\
                    watchdog = { stopped = \"4s\" }\n";
        let migration = Config::parse("f", text).unwrap().migration;
        let rules = migration.rules();
        assert_eq!((rules.blackhole_all, rules.hold, rules.share), (true, false, 50));
        assert_eq!(rules.datagrams, 7_000_000);
        assert_eq!((rules.slow_start, rules.limits.stopped), (30_000_000, 4_000_000));
        assert_eq!(rules.limits.resumed, Rules::default().limits.resumed);
    }

    #[test]
    fn packets_wait_only_where_a_tunnel_leads() {
        let config = Config::parse("f", "[migration]\nstopped = \"hold\"\n").unwrap();
        assert!(config.migration.rules().hold);
        let warned = config.warnings.iter().any(|one| one.to_string().contains("reached by a tunnel"));
        assert!(warned, "{:?}", config.warnings);
        assert!(
            !Config::parse("f", "[migration]\nstopped = \"blackhole\"\n").unwrap().migration.rules().hold
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, says) in [
            ("blackhole = \"never\"", 2, "stopped, migration"),
            ("stopped = \"wait\"", 2, "blackhole, hold"),
            ("blackhole = \"migration\"\nstopped = \"hold\"", 3, "none can wait"),
            ("share = 101", 2, "outside 0 to 100"),
            ("drain = \"0s\"", 2, "outside 1s"),
            ("udp = \"25h\"", 2, "outside 0s"),
            ("watchdog = { stoped = \"5s\" }", 2, "`stopped`"),
        ] {
            let problems = Config::parse("f", &format!("[migration]\n{text}\n")).unwrap_err().0;
            let errors: Vec<_> = problems.iter().filter(|one| one.severity == Severity::Error).collect();
            assert_eq!((errors.len(), errors[0].line), (1, line), "{text}: {errors:?}");
            assert!(errors[0].to_string().contains(says), "{}", errors[0]);
        }
    }
}
